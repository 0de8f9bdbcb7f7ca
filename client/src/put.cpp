// Writing to `put`.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <failure.hpp>
#include <put.hpp>
#include <text.hpp>

namespace ipcfs::client {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;
constexpr std::int64_t kProgressEvery = 500'000'000;  // ns between updates of the progress line
// Writing a byte here exceeds any max-payload, so that the daemon drops the message.
constexpr off_t kBeyondMaxPayload = off_t{1} << 50;

std::uint64_t size_of(int fd) {
    struct stat about {};
    if (::fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return 0;
    return static_cast<std::uint64_t>(about.st_size);
}

}  // namespace

bool LargeBody::rewind() {
    if (rest < 0) return true;
    if (::lseek(rest, 0, SEEK_SET) != 0) return false;
    start = {};
    return true;
}

LargeWrite::LargeWrite(const Channel& channel, std::string_view file, bool nonblocking)
    : fd_(open_or_fail(channel.file(file), O_WRONLY | (nonblocking ? O_NONBLOCK : 0),
                       channel.shown(file))),
      framed_(file != "put") {}

LargeWrite::~LargeWrite() {
    if (fd_) discard();
}

// Makes the daemon drop the message: it discards frames that are incomplete or longer than their
// header says.
void LargeWrite::discard() {
    [[maybe_unused]] auto n =
        framed_ ? ::write(fd_.get(), "", 1) : ::pwrite(fd_.get(), "", 1, kBeyondMaxPayload);
}

int LargeWrite::write(std::string_view bytes) {
    while (!bytes.empty()) {
        ssize_t n = ::write(fd_.get(), bytes.data(), std::min(bytes.size(), kPiece));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return error_ = n < 0 ? errno : EIO;
        bytes.remove_prefix(static_cast<std::size_t>(n));
        written_ += static_cast<std::uint64_t>(n);
    }
    return 0;
}

int LargeWrite::finish() {
    if (error_ != 0) discard();
    // close(2) releases the descriptor even if it fails.
    int at_close = ::close(fd_.release()) == 0 ? 0 : errno;
    // With passthrough the daemon can only seal a message that has become too large: the write
    // fails with EPERM, and close(2) returns the reason.
    return error_ == 0 || (error_ == EPERM && at_close != 0) ? at_close : error_;
}

int write_body(LargeWrite& out, const LargeBody& body, std::int64_t started) {
    if (int error = out.write(body.start)) return error;
    if (body.rest < 0) return 0;
    const std::uint64_t whole = size_of(body.rest);
    std::int64_t shown = started;
    for (std::string piece; read_more(body.rest, piece, body.shown, kPiece); piece.clear()) {
        if (int error = out.write(piece)) return error;
        std::int64_t at = now();
        if (at - shown < kProgressEvery) continue;
        shown = at;
        auto rate = static_cast<double>(out.written()) * 1e9 / static_cast<double>(at - started);
        show_progress("sending: " + human_size(out.written()) +
                      (whole > out.written() ? " of " + human_size(whole) : "") + ", " +
                      human_size(static_cast<std::uint64_t>(rate)) + "/s...");
    }
    return 0;
}

Fd hold_rest(int source, const std::string& shown) {
    Fd memory(::memfd_create("ipcfs-send", MFD_CLOEXEC));
    if (!memory) fail_errno("memory for " + shown, errno);
    for (std::string piece; read_more(source, piece, shown, kPiece); piece.clear()) {
        write_all(memory.get(), piece, "memory for " + shown);
    }
    ::lseek(memory.get(), 0, SEEK_SET);
    return memory;
}

}  // namespace ipcfs::client
