// Bodies of messages. Payloads that are not files come through the client header. Its control
// connection also tells the daemon that this process lives, so that borrowed chunks return when it
// ends.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <failure.hpp>
#include <message_body.hpp>

#include <ipcfs/message.hpp>
#include <ipcfs/mount.hpp>
#include <ipcfs/page_map.hpp>
#include <ipcfs/region.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::client {
namespace {

constexpr std::size_t kCopyPiece = std::size_t{4} << 20;

}  // namespace

MessageBody::MessageBody(const Channel& channel, const FrameView& frame, bool leased)
    : channel_(channel) {
    if (frame.header.payload_id == 0) {
        size_ = frame.body.size();
        fetch_ = [body = as_text(frame.body)](std::uint64_t offset, std::size_t length) {
            return body.substr(offset, length);
        };
        return;
    }
    PayloadRef ref;
    auto value = frame.extension(ExtensionType::kPayload);
    if (!value || value->size() < sizeof ref) fail_lost("the daemon does not say where it is");
    std::memcpy(&ref, value->data(), sizeof ref);
    size_ = ref.size;
    locate(frame, ref, leased);
}

void MessageBody::fail_lost(const std::string& why) const {
    fail(kError, channel_.shown() + ": a message came, but not its payload: " + why);
}

void MessageBody::locate(const FrameView& frame, const PayloadRef& ref, bool leased) {
    const std::uint64_t id = frame.header.payload_id;
    // The file of a leased chunk is a copy; the chunk stays with the lease.
    if (ref.kind == PayloadKind::kSealed || (leased && ref.kind == PayloadKind::kPooled)) {
        kind_ = ref.kind == PayloadKind::kSealed ? "sealed" : "pooled";
        file_ = Fd(detail::open_at(AT_FDCWD, channel_.payload(id).c_str(), O_RDONLY));
        if (!file_) fail_lost(describe(errno));
        return;
    }
    auto real = ipcfs::detail::resolve(channel_.path, "receive");
    if (!real) fail_lost(real.error().message());
    auto place = ipcfs::detail::place_of(*real);
    if (!place) fail_lost(place.error().message());
    auto hold = std::make_shared<ipcfs::detail::Hold>(ref, id, place->mount);
    auto keep = [this](auto mapped) {
        if (!mapped) fail_lost(mapped.error().message());
        auto shared =
            std::make_shared<std::remove_reference_t<decltype(*mapped)>>(std::move(mapped).value());
        fetch_ = [shared](std::uint64_t offset, std::size_t length) {
            return as_text(shared->bytes()).substr(offset, length);
        };
    };
    switch (ref.kind) {
        case PayloadKind::kPooled: {
            kind_ = "pooled";
            auto pool = ipcfs::detail::ReceivedPool::map(place->mount, ref.pool);
            if (!pool) fail_lost(pool.error().message());
            auto chunk = (*pool)->bytes(ref);
            if (!chunk) fail_lost("its pool has no such chunk");
            hold->set_chunk(std::move(*pool), *chunk);
            fetch_ = [hold, chunk = as_text(*chunk)](std::uint64_t offset, std::size_t length) {
                return chunk.substr(offset, length);
            };
            return;
        }
        case PayloadKind::kLazy: {
            kind_ = "lazy";
            const Message message(frame, nullptr, Payload(hold));
            auto range = page_map(message, LazyMapOptions{});
            if (!range) fail_lost(range.error().message());
            auto shared = std::make_shared<LazyRange>(std::move(range).value());
            fetch_ = [this, shared](std::uint64_t offset, std::size_t length) {
                auto bytes = shared->fetch(static_cast<std::size_t>(offset), length);
                if (!bytes) fail_lost(bytes.error().message());
                return as_text(*bytes);
            };
            return;
        }
        case PayloadKind::kHandoff: {
            kind_ = "handoff";
            auto region = Region::claim(Message(frame, nullptr, Payload(hold)));
            if (!region) fail_lost(region.error().message());
            return keep(region->map(Access::read_only));
        }
        default: fail_lost("this version of ipcfs does not know its kind");
    }
}

void MessageBody::for_each_piece(const std::function<void(std::string_view)>& use) const {
    std::vector<char> piece;
    if (file_) piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(size_, kCopyPiece)));
    for (std::uint64_t at = 0; at < size_;) {
        auto length = static_cast<std::size_t>(std::min<std::uint64_t>(size_ - at, kCopyPiece));
        std::string_view bytes;
        if (file_) {
            ssize_t n = ::pread(file_.get(), piece.data(), length, static_cast<off_t>(at));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) fail_lost(n < 0 ? describe(errno) : "it is shorter than it should be");
            bytes = {piece.data(), static_cast<std::size_t>(n)};
        } else {
            bytes = fetch_(at, length);
            if (bytes.empty()) fail_lost("it is shorter than it should be");
        }
        use(bytes);
        at += bytes.size();
    }
}

void MessageBody::copy_to(int fd, const std::string& shown) const {
    off_t at = 0;
    // Copy within the kernel if possible; it is not for a file opened for appending, for example.
    while (file_ && static_cast<std::uint64_t>(at) < size_) {
        ssize_t n = ::sendfile(fd, file_.get(), &at, kCopyPiece);
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        if (n < 0 && at == 0 && (errno == EINVAL || errno == ENOSYS)) break;
        if (n < 0 && errno == EAGAIN) {
            poll_one(fd, POLLOUT, 1'000'000'000);
            continue;
        }
        if (n < 0) fail(kError, shown + ": " + describe(errno));
        fail_lost("it is shorter than it should be");
    }
    if (file_ && at > 0) return;
    for_each_piece([&](std::string_view piece) { write_all(fd, piece, shown); });
}

Fd MessageBody::to_file() && {
    if (file_) return std::move(file_);
    Fd file(::memfd_create("ipcfs-message", MFD_CLOEXEC));
    if (!file) fail_errno("memory for a message", errno);
    copy_to(file.get(), "memory for a message");
    ::lseek(file.get(), 0, SEEK_SET);
    return file;
}

std::string MessageBody::text() const {
    std::string all;
    all.reserve(static_cast<std::size_t>(size_));
    for_each_piece([&](std::string_view piece) { all += piece; });
    return all;
}

}  // namespace ipcfs::client
