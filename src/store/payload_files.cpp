// Payloads as files. Any thread.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <store/files.hpp>
#include <store/payload_files.hpp>

namespace ipcfs::store {

namespace {

constexpr std::size_t kPart = 256 << 10;

// Calls use(bytes) for `size` bytes of `file` from `offset`.
template <class F>
Result<void> read_through(int file, std::uint64_t offset, std::uint64_t size, F&& use) {
    std::vector<std::byte> part(std::min<std::uint64_t>(kPart, std::max<std::uint64_t>(size, 1)));
    while (size != 0) {
        const auto want = std::min<std::uint64_t>(part.size(), size);
        const auto got = ::pread(file, part.data(), want, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno_fault("read a payload");
        if (got == 0) return Fault{EIO, "a payload is shorter than it should be"};
        const auto count = static_cast<std::size_t>(got);
        if (auto done = use(Bytes(part).first(count)); !done) return done;
        offset += count;
        size -= count;
    }
    return {};
}

}  // namespace

std::string PayloadFiles::path_of(std::uint64_t id, const Known& known) const {
    char name[64];
    std::snprintf(name, sizeof name, "/%016" PRIx64 ".%" PRIu64 ".%08" PRIx32, id, known.size,
                  known.crc);
    return directory_ + name;
}

Result<void> PayloadFiles::load() {
    auto names = list_directory(directory_);
    if (!names) return names.error();
    for (const auto& name : *names) {
        std::uint64_t id = 0;
        Known known;
        const int read = std::sscanf(name.c_str(), "%16" SCNx64 ".%" SCNu64 ".%8" SCNx32, &id,
                                     &known.size, &known.crc);
        const std::string path = directory_ + "/" + name;
        if (read != 3 || path_of(id, known) != path) {
            (void)remove_file(path);
            continue;
        }
        known_.with([&](auto& all) { all[id] = known; });
    }
    return {};
}

Result<void> PayloadFiles::save(std::uint64_t id, int file, std::uint64_t offset,
                                std::uint64_t size, bool sync) {
    if (known_.with([&](auto& all) { return all.contains(id); }))
        return Fault{EEXIST, "a payload of that id is there"};
    const std::string half = directory_ + "/" + std::to_string(id) + ".half";
    auto to = open_file(half, O_WRONLY | O_CREAT | O_TRUNC);
    if (!to) return to.error();
    Known known{size, 0};
    auto done = read_through(file, offset, size, [&](Bytes part) {
        known.crc = crc32c(part, known.crc);
        return write_all(to->get(), part, half);
    });
    if (done && sync) done = sync_data(to->get(), half);
    if (done) done = rename_file(half, path_of(id, known));
    if (done && sync) done = sync_directory(directory_);
    if (!done) {
        (void)remove_file(half);
        (void)remove_file(path_of(id, known));
        return done;
    }
    known_.with([&](auto& all) { all[id] = known; });
    return {};
}

Result<Fd> PayloadFiles::open(std::uint64_t id) {
    const auto known = known_.with([&](auto& all) -> std::optional<Known> {
        const auto found = all.find(id);
        return found == all.end() ? std::nullopt : std::optional(found->second);
    });
    if (!known) return Fault{ENOENT, "payload " + std::to_string(id) + " is not kept"};
    const std::string path = path_of(id, *known);
    auto file = open_file(path, O_RDONLY);
    if (!file) return file.error();
    std::uint32_t crc = 0;
    auto done = read_through(file->get(), 0, known->size, [&](Bytes part) -> Result<void> {
        crc = crc32c(part, crc);
        return {};
    });
    if (!done) return done.error();
    if (crc != known->crc || !whole(id))
        return Fault{EIO, "payload " + path + " is damaged: its checksum is wrong"};
    return file;
}

void PayloadFiles::remove(std::uint64_t id) noexcept {
    known_.with([&](auto& all) {
        const auto found = all.find(id);
        if (found == all.end()) return;
        ::unlink(path_of(id, found->second).c_str());
        all.erase(found);
    });
}

bool PayloadFiles::whole(std::uint64_t id) {
    return known_.with([&](auto& all) {
        struct stat info {};
        const auto found = all.find(id);
        return found != all.end() && ::stat(path_of(id, found->second).c_str(), &info) == 0 &&
               static_cast<std::uint64_t>(info.st_size) == found->second.size;
    });
}

std::vector<std::uint64_t> PayloadFiles::ids() {
    return known_.with([](auto& all) {
        std::vector<std::uint64_t> ids;
        for (const auto& [id, known] : all) ids.push_back(id);
        return ids;
    });
}

Result<void> PayloadFiles::link_into(const std::string& directory) {
    auto names = list_directory(directory_);
    if (!names) return names.error();
    for (const auto& name : *names)
        if (::link((directory_ + "/" + name).c_str(), (directory + "/" + name).c_str()) != 0 &&
            errno != EEXIST)
            return errno_fault("link " + name + " into " + directory);
    return sync_directory(directory);
}

}  // namespace ipcfs::store
