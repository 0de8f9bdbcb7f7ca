// System calls on files. Any thread.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <store/files.hpp>

namespace ipcfs::store {

namespace {

template <class F>
auto retried(F&& call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace

Result<Fd> open_file(const std::string& path, int flags, int mode) {
    const int fd = retried([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
    if (fd < 0) return errno_fault("open " + path);
    return Fd(fd);
}

Result<void> make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
    return errno_fault("mkdir " + path);
}

Result<void> sync_directory(const std::string& path) {
    auto fd = open_file(path, O_RDONLY | O_DIRECTORY);
    if (!fd) return fd.error();
    if (retried([&] { return ::fsync(fd->get()); }) != 0) return errno_fault("fsync " + path);
    return {};
}

Result<void> sync_data(int file, const std::string& path) {
    if (retried([&] { return ::fdatasync(file); }) != 0) return errno_fault("fdatasync " + path);
    return {};
}

Result<void> rename_file(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) return errno_fault("rename " + from + " to " + to);
    return {};
}

Result<void> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return errno_fault("unlink " + path);
}

bool exists(const std::string& path) {
    struct stat info {};
    return ::lstat(path.c_str(), &info) == 0;
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    DIR* const directory = ::opendir(path.c_str());
    if (directory == nullptr) return errno_fault("opendir " + path);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = ::readdir(directory)) {
        std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(std::move(name));
        errno = 0;
    }
    const int error = errno;
    ::closedir(directory);
    if (error != 0) return Fault{error, "readdir " + path};
    return names;
}

Result<std::vector<std::byte>> read_file(const std::string& path) {
    auto fd = open_file(path, O_RDONLY);
    if (!fd) return fd.error();
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return errno_fault("fstat " + path);
    std::vector<std::byte> data(static_cast<std::size_t>(info.st_size));
    for (std::size_t at = 0; at < data.size();) {
        const auto got =
            retried([&] { return ::read(fd->get(), data.data() + at, data.size() - at); });
        if (got < 0) return errno_fault("read " + path);
        if (got == 0) {
            data.resize(at);
            break;
        }
        at += static_cast<std::size_t>(got);
    }
    return data;
}

Result<void> write_all(int file, Bytes data, const std::string& path) {
    while (!data.empty()) {
        const auto put = retried([&] { return ::write(file, data.data(), data.size()); });
        if (put < 0) return errno_fault("write " + path);
        data = data.subspan(static_cast<std::size_t>(put));
    }
    return {};
}

Result<void> replace_file(const std::string& path, Bytes data) {
    const std::string other = path + ".new";
    auto fd = open_file(other, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fd) return fd.error();
    auto done = write_all(fd->get(), data, other);
    if (done) done = sync_data(fd->get(), other);
    if (done) done = rename_file(other, path);
    if (done) done = sync_directory(parent_of(path));
    return done;
}

Result<void> allocate(int file, std::size_t size, const std::string& path) {
    const auto length = static_cast<off_t>(size);
    if (retried([&] { return ::fallocate(file, 0, 0, length); }) == 0) return {};
    if (errno != EOPNOTSUPP && errno != ENOSYS) return errno_fault("fallocate " + path);
    const std::vector<std::byte> zeros(64 << 10);
    for (std::size_t at = 0; at < size; at += zeros.size()) {
        const auto part = Bytes(zeros).first(std::min(zeros.size(), size - at));
        if (auto done = write_all(file, part, path); !done) return done;
    }
    return {};
}

void remove_tree(const std::string& path) noexcept {
    try {
        if (auto names = list_directory(path)) {
            for (const auto& name : *names) {
                const std::string each = path + "/" + name;
                if (::unlink(each.c_str()) == 0) continue;
                if (auto inner = list_directory(each))
                    for (const auto& file : *inner) ::unlink((each + "/" + file).c_str());
                ::rmdir(each.c_str());
            }
        }
        ::rmdir(path.c_str());
    } catch (...) {
        return;  // out of memory: what is left lies there
    }
}

}  // namespace ipcfs::store
