#include "files.hpp"

#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <sstream>
#include <unistd.h>

namespace ipcfs::test {

std::string text_of(std::size_t size, unsigned seed) {
    std::string text(size, '\0');
    unsigned state = seed * 2654435761U + 12345;
    for (char& each : text) {
        state = state * 1103515245U + 12345U;
        each = static_cast<char>('a' + (state >> 16) % 26);
    }
    return text;
}

Fd open_file(const std::string& path, int flags) {
    return Fd(::open(path.c_str(), flags | O_CLOEXEC));
}

int open_error(const std::string& path, int flags) {
    const Fd file = open_file(path, flags);
    return file ? 0 : errno;
}

long write_to(int fd, std::string_view bytes) {
    const ssize_t done = ::write(fd, bytes.data(), bytes.size());
    return done < 0 ? -errno : done;
}

Read read_from(int fd, std::size_t size) {
    // Kept, and not filled with zeros: that took 5 ms a read under TSan.
    thread_local std::unique_ptr<char[]> buffer;
    thread_local std::size_t capacity = 0;
    if (capacity < size) {
        buffer = std::make_unique_for_overwrite<char[]>(size);
        capacity = size;
    }
    const ssize_t done = ::read(fd, buffer.get(), size);
    if (done < 0) return {-errno, {}};
    return {done, std::string(buffer.get(), static_cast<std::size_t>(done))};
}

Read read_patiently(int fd, std::size_t size) {
    for (;;) {
        auto got = read_from(fd, size);
        if (got.result != -EINTR) return got;
    }
}

bool is_undone(long result) {
    return result == -ECANCELED || result == -EINTR || result == -EAGAIN;
}

short poll_one(int fd, short events, int milliseconds) {
    pollfd one{fd, events, 0};
    for (;;) {
        const int ready = ::poll(&one, 1, milliseconds);
        if (ready < 0 && errno == EINTR) continue;
        return ready > 0 ? one.revents : static_cast<short>(0);
    }
}

std::string slurp(const std::string& path) {
    std::string all;
    const Fd file = open_file(path, O_RDONLY);
    if (!file) return all;
    for (;;) {
        const auto got = read_patiently(file.get(), 65536);
        if (got.result <= 0) return all;
        all += got.data;
    }
}

std::string value_of(const std::string& lines, std::string_view key) {
    std::istringstream in(lines);
    for (std::string line; std::getline(in, line);) {
        if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ' ') {
            return line.substr(key.size() + 1);
        }
    }
    return {};
}

std::vector<Row> parse_table(const std::string& text) {
    const auto fields = [](const std::string& line) {
        std::vector<std::string> parts;
        std::istringstream in(line);
        for (std::string part; std::getline(in, part, '\t');) parts.push_back(part);
        return parts;
    };
    std::vector<Row> rows;
    std::istringstream in(text);
    std::string line;
    if (!std::getline(in, line)) return rows;
    const auto names = fields(line);
    while (std::getline(in, line)) {
        const auto parts = fields(line);
        Row row;
        for (std::size_t i = 0; i < names.size() && i < parts.size(); ++i) row[names[i]] = parts[i];
        rows.push_back(std::move(row));
    }
    return rows;
}

}  // namespace ipcfs::test
