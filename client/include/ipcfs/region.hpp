// Region: named shared memory, share/NAME of a channel, which its owner, mode and ACL let others
// map; or one that was handed over, which has no name and exactly one process.
//
//     auto grid = ipcfs::Region::create(*channel, "grid", 64 << 20);
//     auto memory = grid->map(ipcfs::Access::read_write);
//     grid->grant(0660);                            // the group may map it, too
//     grid->revoke();                               // all mappings end
//     std::move(*grid).hand_off(*target);           // another process owns it now
//
// Revoking and handing over take the memory away from existing mappings: access to them is SIGBUS.
// A process that maps the region of an untrusted user must expect that, or truncation, at any time.
// Any thread may call any function of a Region except move, destruction and hand_off. A forked
// child has its parent's regions and mappings as its own.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <string>
#include <string_view>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/channel.hpp>
#include <ipcfs/connection.hpp>
#include <ipcfs/mapping.hpp>
#include <ipcfs/memory.hpp>
#include <ipcfs/message.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/room.hpp>

namespace ipcfs {

class Region {
public:
    // Creates a zero-filled region of `size` bytes, owned by this user. EEXIST: the name is taken;
    // EACCES: no permission to write to share/; EDQUOT, ENOSPC; EFBIG: above the channel's max-payload.
    static Expected<Region> create(const Channel& channel, std::string_view name, std::size_t size,
                                   mode_t mode = 0600) {
        auto made = open_file(channel, name, O_RDWR | O_CREAT | O_EXCL, mode, "create region");
        if (!made) return made;
        // Set the mode exactly: the umask does not apply to regions.
        auto done = made->grant(mode);
        if (done) done = made->resize(size);
        if (!done) {
            (void)made->unlink();
            return std::move(done).error();
        }
        return made;
    }

    // Opens an existing region. EACCES: no permission for this access; ENOENT.
    static Expected<Region> open(const Channel& channel, std::string_view name,
                                 Access access = Access::read_write) {
        const int flags = access == Access::read_write ? O_RDWR : O_RDONLY;
        return open_file(channel, name, flags, 0, "open region");
    }

    // Claims the region that `message`, of type handoff, brought to this process, which then is its
    // only owner. Possible once, before this process receives the channel's next message. EINVAL:
    // the message brings no region; EPERM: already claimed, or received by another process; ENOENT:
    // too late.
    static Expected<Region> claim(const Message& message) {
        constexpr const char* kOperation = "claim region";
        const Payload& payload = message.payload();
        if (!payload || payload.kind() != PayloadKind::kHandoff)
            return Error{EINVAL, kOperation, "the message brings no region"};
        auto reply = detail::Connection::request(payload.mount(), ControlOp::kClaim,
                                                 ControlId{payload.id()});
        if (!reply) return std::move(reply).error();
        if (reply->fds.size() != 1) return Error{EPROTO, kOperation};
        return Region(std::move(reply->fds.front()), nullptr, {}, O_RDWR);
    }

    // The present size in bytes; other processes may change it.
    Expected<std::size_t> size() const {
        struct stat about {};
        if (::fstat(file_.get(), &about) != 0) return detail::last_error("measure region");
        return static_cast<std::size_t>(about.st_size);
    }
    // Changes the size; new bytes are zero. Access to mappings beyond the new end is SIGBUS. Errors
    // as create().
    Expected<void> resize(std::size_t size) {
        if (size > static_cast<std::size_t>(PTRDIFF_MAX)) return Error{EFBIG, "resize region"};
        return done(::ftruncate(file_.get(), static_cast<off_t>(size)), "resize region");
    }

    // Maps the whole region at its present size. The mapping outlives the Region. EACCES: not open
    // for this access.
    Expected<Mapping> map(Access access = Access::read_write) const {
        auto bytes = size();
        if (!bytes) return std::move(bytes).error();
        return Mapping::of(file_.get(), *bytes, access);
    }

    // Sets the mode, like chmod(2), for future opens. Existing mappings stay; see revoke().
    Expected<void> grant(mode_t mode) { return done(::fchmod(file_.get(), mode), "grant region"); }
    // Removes the name. Processes that have the region open or mapped keep it.
    Expected<void> unlink() {
        if (!directory_) return no_name("unlink region");
        return done(::unlinkat(directory_->fd(), entry().c_str(), 0), "unlink region");
    }
    // Takes the memory away from every process that has it mapped or open, including this one: access
    // to those mappings faults. The content moves to new memory, which this Region opens, and which
    // others with permission may open again. Requires write permission for the channel's `ctl`.
    Expected<void> revoke() {
        constexpr const char* kOperation = "revoke region";
        if (!directory_) return no_name(kOperation);
        const detail::Fd ctl(::openat(directory_->fd(), "ctl", O_WRONLY | O_CLOEXEC));
        if (!ctl) return detail::last_error(kOperation);
        const std::string command = "revoke " + entry() + "\n";
        if (::write(ctl.get(), command.data(), command.size()) < 0)
            return detail::last_error(kOperation);
        detail::Fd again(::openat(directory_->fd(), entry().c_str(), flags_ | O_CLOEXEC));
        if (!again) return detail::last_error(kOperation);
        // Replace the descriptor in place, so that concurrent calls use the old or the new file.
        if (::dup3(again.get(), file_.get(), O_CLOEXEC) < 0) return detail::last_error(kOperation);
        return {};
    }

    // Sends the region to one receiver of `target`, as a message of type handoff without a body; waits
    // for room. The region leaves share/ at once, all its mappings fault, including this process's, and
    // only the receiver has it. After an error the caller keeps it. EACCES: requires write permission
    // for the region, share/ and `target`; EAGAIN, ETIMEDOUT: no room in time; EINVAL: it has no name.
    Expected<void> hand_off(Channel& target, const SendOptions& options = {}) && {
        constexpr const char* kOperation = "hand off region";
        if (!directory_) return no_name(kOperation);
        if (target.mount() != directory_->mount())
            return Error{EXDEV, kOperation, "the channels are in different trees"};
        std::vector<std::byte> storage;
        const auto whole = detail::with_texts(options, storage);
        if (!whole) return whole.error();
        ControlHandoff what{.send = detail::control_send(*whole)};
        what.send.type = static_cast<std::uint8_t>(FrameType::kHandoff);
        what.name_length = static_cast<std::uint32_t>(name_.size());
        const detail::Deadline deadline(options.timeout);
        detail::RoomWait room;
        while (true) {
            const std::string path = directory_->relative();
            const std::string to = target.name();
            what.send.path_length = static_cast<std::uint32_t>(path.size());
            what.target_length = static_cast<std::uint32_t>(to.size());
            auto sent = detail::Connection::request(directory_->mount(), ControlOp::kHandoff, what,
                                                    {path, name_, to, detail::as_text(storage)});
            if (sent) break;
            if (sent.error().code != EAGAIN) return std::move(sent).error();
            auto queue = target.send_fd();
            if (!queue) return std::move(queue).error();
            if (auto waited = room.wait(*queue, deadline, kOperation); !waited) return waited;
        }
        file_.reset();
        directory_.reset();
        return {};
    }

    // The open file, for other operations (posix_fallocate, fsetxattr of an ACL). Do not close it.
    int fd() const noexcept { return file_.get(); }
    // The name in share/; empty for a region that was handed over.
    const std::string& name() const noexcept { return name_; }

private:
    Region(detail::Fd file, std::shared_ptr<const detail::Directory> directory, std::string name,
           int flags)
        : file_(std::move(file)),
          directory_(std::move(directory)),
          name_(std::move(name)),
          flags_(flags) {}

    static Expected<Region> open_file(const Channel& channel, std::string_view name, int flags,
                                      mode_t mode, const char* operation) {
        if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
            name.find('\0') != name.npos || name.find('\n') != name.npos)
            return Error{EINVAL, operation, "not a valid name of a region"};
        // Use a separate Directory: the channel may be destroyed before the region.
        auto directory = detail::Directory::open(
            "/proc/self/fd/" + std::to_string(channel.directory()), ChannelOptions{});
        if (!directory) return std::move(directory).error();
        const std::string entry = "share/" + std::string(name);
        detail::Fd file(
            ::openat((*directory)->fd(), entry.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, mode));
        if (!file) return detail::last_error(operation);
        return Region(std::move(file), std::move(*directory), std::string(name), flags & O_ACCMODE);
    }

    static Expected<void> done(int result, const char* operation) {
        if (result != 0) return detail::last_error(operation);
        return {};
    }
    static Error no_name(const char* operation) {
        return Error{EINVAL, operation, "a region that was handed over has no name"};
    }
    std::string entry() const { return "share/" + name_; }

    detail::Fd file_;
    std::shared_ptr<const detail::Directory> directory_;  // null if handed over
    std::string name_;
    int flags_ = O_RDWR;
};

}  // namespace ipcfs
