// Any thread; each has a pipe of its own.
#include <algorithm>
#include <cerrno>
#include <fcntl.h>
#include <memory>
#include <new>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

#include <base/fd.hpp>
#include <fuse/file_reply.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kWorthSplicing = 16 << 10;  // below, copying is cheaper than three calls

// A thread's pipe, filled and emptied within one reply. A pipe that could not be emptied is closed.
class Sleeve {
public:
    // False if there can be no pipe of this size.
    bool fits(std::size_t bytes) noexcept {
        if (refused_ && bytes >= refused_) return false;
        if (!in_) {
            int pair[2];
            if (::pipe2(pair, O_CLOEXEC | O_NONBLOCK) != 0) return false;
            out_.reset(pair[0]);
            in_.reset(pair[1]);
            size_ = static_cast<std::size_t>(std::max(0, ::fcntl(in_.get(), F_GETPIPE_SZ)));
        }
        if (bytes <= size_) return true;
        const int grown = ::fcntl(in_.get(), F_SETPIPE_SZ, static_cast<int>(bytes));
        if (grown < 0) refused_ = bytes;
        if (grown > 0) size_ = static_cast<std::size_t>(grown);
        return bytes <= size_;
    }
    void discard() noexcept {
        in_.reset();
        out_.reset();
    }
    int in() const { return in_.get(); }
    int out() const { return out_.get(); }

private:
    Fd in_, out_;
    std::size_t size_ = 0;
    std::size_t refused_ = 0;  // bytes
};

// `result` is as of writev(2). False if nothing was sent and it has to be sent in another way.
bool splice_reply(int device, const fuse_out_header& header, const FileBytes& bytes,
                  ssize_t& result) noexcept {
    constexpr std::size_t kPage = 4096;
    thread_local Sleeve sleeve;
    // A page for the header, and one more for a part that begins within a page.
    if (!sleeve.fits(bytes.length + 3 * kPage)) return false;
    bool whole = ::write(sleeve.in(), &header, sizeof header) == sizeof header;
    auto at = static_cast<off_t>(bytes.offset);
    std::size_t left = bytes.length;
    while (whole && left > 0) {
        const ssize_t done =
            ::splice(bytes.file, &at, sleeve.in(), nullptr, left, SPLICE_F_NONBLOCK);
        if (done < 0 && errno == EINTR) continue;
        whole = done > 0;
        if (whole) left -= static_cast<std::size_t>(done);
    }
    if (!whole) {  // shorter than the header says
        sleeve.discard();
        return false;
    }
    // Not SPLICE_F_MOVE: that would let the kernel take the pages out of the file.
    result = ::splice(sleeve.out(), nullptr, device, nullptr, header.len, 0);
    if (result == static_cast<ssize_t>(header.len)) return true;
    const int error = errno;
    sleeve.discard();
    errno = error;
    return true;
}

}  // namespace

ssize_t read_bytes(const FileBytes& bytes, std::byte* to) noexcept {
    std::size_t done = 0;
    while (done < bytes.length) {
        const ssize_t got = ::pread(bytes.file, to + done, bytes.length - done,
                                    static_cast<off_t>(bytes.offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return -errno;
        if (got == 0) break;
        done += static_cast<std::size_t>(got);
    }
    return static_cast<ssize_t>(done);
}

ssize_t send_bytes(int device, fuse_out_header header, const FileBytes& bytes) noexcept {
    header.len = static_cast<std::uint32_t>(sizeof header + bytes.length);
    ssize_t result = -1;
    if (bytes.length >= kWorthSplicing && splice_reply(device, header, bytes, result))
        return result;
    const std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[bytes.length]);
    const ssize_t got = buffer ? read_bytes(bytes, buffer.get()) : -ENOMEM;
    if (got < 0) header.error = -EIO;
    const std::size_t size = got < 0 ? 0 : static_cast<std::size_t>(got);
    header.len = static_cast<std::uint32_t>(sizeof header + size);
    iovec parts[2] = {{&header, sizeof header}, {buffer.get(), size}};
    return ::writev(device, parts, 2);
}

}  // namespace ipcfs::fuse
