#include <algorithm>
#include <charconv>
#include <cstring>
#include <fcntl.h>
#include <string_view>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include <payload/memory.hpp>

namespace ipcfs::payload {
namespace {

constexpr unsigned kFutureWrite = 0x0010;  // F_SEAL_FUTURE_WRITE
constexpr unsigned kWhole = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
constexpr unsigned kNoMoreSeals = F_SEAL_SEAL;
constexpr unsigned kContent = kWhole & ~kNoMoreSeals;
constexpr unsigned kPool = F_SEAL_SHRINK | F_SEAL_GROW | kFutureWrite;
constexpr std::uint64_t kPiece = 4U << 20;  // bytes copied at a time

Result<std::uint64_t> size_of(int file) {
    struct stat st {};
    if (::fstat(file, &st) != 0) return errno_fault("fstat a memory file");
    return Result<std::uint64_t>(boost::system::in_place_value,
                                 static_cast<std::uint64_t>(st.st_size));
}

unsigned missing_seals(int file, Sealing sealing) {
    const auto seals = static_cast<unsigned>(::fcntl(file, F_GET_SEALS));
    const unsigned missing = (sealing == Sealing::kWhole ? kContent : kPool) & ~seals;
    // F_SEAL_WRITE implies the other one.
    return sealing == Sealing::kPool && (seals & F_SEAL_WRITE) ? missing & ~kFutureWrite : missing;
}

Result<void> copy_piece(int from, std::uint64_t offset, int to, std::uint64_t at,
                        std::uint64_t length) {
    if (::lseek(to, static_cast<off_t>(at), SEEK_SET) < 0)
        return errno_fault("lseek a memory file");
    auto position = static_cast<off_t>(offset);
    while (length > 0) {
        ssize_t done = ::sendfile(to, from, &position, std::min(length, kPiece));
        if (done < 0 && errno == EINTR) continue;
        // sendfile(2) does not support hugetlb pages, which a pool may use.
        if (done < 0 && errno == EINVAL) {
            char buffer[1 << 16];
            done = ::pread(from, buffer, std::min(length, sizeof buffer), position);
            if (done > 0) done = ::write(to, buffer, static_cast<std::size_t>(done));
            if (done > 0) position += done;
        }
        if (done < 0) return errno_fault("copy between memory files");
        if (done == 0) return Fault{EIO, "copy between memory files: the source became shorter"};
        length -= static_cast<std::uint64_t>(done);
    }
    return {};
}

}  // namespace

Result<Fd> make_memory(const std::string& name) {
    Fd file(::memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!file) return errno_fault("memfd_create");
    return file;
}

Result<std::uint64_t> seal(int file) {
    if (::fcntl(file, F_ADD_SEALS, kWhole) != 0) {
        // EBUSY: a writable mapping exists. EPERM: the descriptor is read-only or has F_SEAL_SEAL.
        int seals = ::fcntl(file, F_GET_SEALS);
        if (seals < 0 || (static_cast<unsigned>(seals) & kContent) != kContent) {
            return Fault{EPERM, errno == EBUSY ? "seal: a process has the memory mapped for writing"
                                               : "seal: the memory file does not accept seals"};
        }
    }
    return size_of(file);
}

bool is_memory(int file) noexcept {
    return ::fcntl(file, F_GET_SEALS) >= 0;
}

bool is_sealed(int file, Sealing sealing) noexcept {
    return missing_seals(file, sealing) == 0;
}

Result<std::uint64_t> check_sealed(int file, Sealing sealing) {
    if (!is_memory(file)) return Fault{EPERM, "not a memfd"};
    const unsigned missing = missing_seals(file, sealing);
    if (missing != 0 && ::fcntl(file, F_ADD_SEALS, missing) != 0) {
        return Fault{EPERM, errno == EBUSY
                                ? "the memfd is still mapped for writing: unmap it, then send it"
                                : "the memfd cannot be sealed: create it with MFD_ALLOW_SEALING "
                                  "and send a descriptor that is open for writing"};
    }
    return size_of(file);
}

namespace {

Result<Fd> reopen_as(int file, int access) {
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    // O_NONBLOCK: another process's lease on the file (fcntl(2), F_SETLEASE) would block the open
    // for 45 s.
    Fd again(::open(path.c_str(), access | O_CLOEXEC | O_NONBLOCK));
    if (!again && errno == EWOULDBLOCK) return Fault{EPERM, "a process holds a lease on the memfd"};
    if (!again) return errno_fault("reopen a memory file");
    return again;
}

}  // namespace

Result<Fd> reopen_read_only(int file) {
    return reopen_as(file, O_RDONLY);
}

Result<Fd> reopen(int file) {
    return reopen_as(file, O_RDWR);
}

bool held_elsewhere(int read_only) noexcept {
    if (::fcntl(read_only, F_SETLEASE, F_WRLCK) != 0) return true;
    ::fcntl(read_only, F_SETLEASE, F_UNLCK);
    return false;
}

std::uint64_t available_memory() noexcept {
    Fd file(::open("/proc/meminfo", O_RDONLY | O_CLOEXEC));
    char text[512];
    ssize_t size = file ? ::read(file.get(), text, sizeof text) : 0;
    std::string_view rest(text, size > 0 ? static_cast<std::size_t>(size) : 0);
    constexpr std::string_view kKey = "MemAvailable:";
    auto at = rest.find(kKey);
    if (at == std::string_view::npos) return UINT64_MAX;
    rest.remove_prefix(at + kKey.size());
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    std::uint64_t kibibytes = 0;
    std::from_chars(rest.data(), rest.data() + rest.size(), kibibytes);
    return kibibytes << 10;
}

Result<void> move_content(int from, int to, std::uint64_t size) {
    if (::ftruncate(to, static_cast<off_t>(size)) != 0) return errno_fault("size a memory file");
    std::uint64_t end = size;
    while (end > 0) {
        std::uint64_t start = (end - 1) / kPiece * kPiece;
        // Ranges that were never written stay holes.
        off_t data = ::lseek(from, static_cast<off_t>(start), SEEK_DATA);
        if (data >= 0 && static_cast<std::uint64_t>(data) < end) {
            if (auto done = copy_piece(from, start, to, start, end - start); !done) return done;
        }
        if (::ftruncate(from, static_cast<off_t>(start)) != 0)
            return errno_fault("empty a memory file");
        end = start;
    }
    return {};
}

Result<void> copy_content(int from, std::uint64_t offset, int to, std::uint64_t size) {
    return copy_piece(from, offset, to, 0, size);
}

}  // namespace ipcfs::payload
