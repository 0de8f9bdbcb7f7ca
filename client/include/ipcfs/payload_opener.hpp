// Opens the payloads of received messages, before the next read releases them. Internal to the
// client header. One thread at a time.
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <signal.h>
#include <string>
#include <sys/sendfile.h>
#include <unistd.h>
#include <utility>

#include <ipcfs/connection.hpp>
#include <ipcfs/directory.hpp>
#include <ipcfs/frame.hpp>
#include <ipcfs/memory.hpp>
#include <ipcfs/payload.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

// The senders' pools: each is mapped once and kept.
class PoolMaps {
public:
    Expected<std::shared_ptr<ReceivedPool>> find(const std::string& mount, std::uint64_t id,
                                                 std::uint32_t sender) {
        ++count_;
        auto& known = maps_[id];
        if (!known) {
            auto mapped = ReceivedPool::map(mount, id);
            if (!mapped) {
                maps_.erase(id);
                return mapped;
            }
            known = std::move(*mapped);
            forget_old(id);
        }
        auto& pool = maps_[id];
        pool->sender_pid = sender;
        pool->last_used = count_;
        return pool;
    }

private:
    static constexpr std::size_t kMaxKept = 64;

    // Forgets the pools of dead senders, and above kMaxKept the least recently used. Payloads keep
    // their own pool alive.
    void forget_old(std::uint64_t but) {
        for (auto each = maps_.begin(); each != maps_.end();) {
            const auto pid = static_cast<pid_t>(each->second->sender_pid);
            const bool gone = pid > 0 && ::kill(pid, 0) != 0 && errno == ESRCH;
            each = gone && each->first != but ? maps_.erase(each) : std::next(each);
        }
        while (maps_.size() > kMaxKept) {
            const auto oldest =
                std::min_element(maps_.begin(), maps_.end(), [&](const auto& a, const auto& b) {
                    return a.second->last_used < b.second->last_used && a.first != but;
                });
            maps_.erase(oldest);
        }
    }

    std::map<std::uint64_t, std::shared_ptr<ReceivedPool>> maps_;
    std::uint64_t count_ = 0;
};

class PayloadOpener {
public:
    // `leased`: messages are received as leases. `accept_pooled`: returns chunks of pools as they
    // are; otherwise copies.
    PayloadOpener(std::shared_ptr<const Directory> directory, bool accept_pooled, bool leased)
        : directory_(std::move(directory)), accept_pooled_(accept_pooled), leased_(leased) {}

    // Returns only errors that a retry may resolve; the Payload carries permanent ones.
    Expected<Payload> open(const FrameView& view) {
        const std::uint64_t id = view.header.payload_id;
        if (id == 0) return Payload();
        PayloadRef ref;
        const auto value = view.extension(ExtensionType::kPayload);
        const bool has_reference = value && value->size() >= sizeof ref;
        if (has_reference) std::memcpy(&ref, value->data(), sizeof ref);
        auto hold = std::make_shared<Hold>(ref, id, directory_->mount());
        if (!has_reference || ref.size > PTRDIFF_MAX) {
            hold->fail(Error{EPROTO, "receive payload"});
        } else if (ref.kind == PayloadKind::kSealed) {
            if (auto opened = open_sealed(*hold, id); !opened) return std::move(opened).error();
        } else if (ref.kind == PayloadKind::kPooled) {
            if (auto opened = open_pooled(hold, ref, view.header); !opened)
                return std::move(opened).error();
        }
        return Payload(std::move(hold));
    }

private:
    static bool is_temporary(int code) noexcept {
        return code == EMFILE || code == ENFILE || code == ENOMEM || code == EAGAIN;
    }

    Expected<void> open_sealed(Hold& hold, std::uint64_t id) {
        auto file = memory_of(id, hold.ref());
        if (file) {
            hold.set_file(std::move(*file));
        } else if (is_temporary(file.error().code)) {
            return std::move(file).error();
        } else {
            hold.fail(std::move(file).error());
        }
        return {};
    }

    // Returns a file to map that outlives the daemon: the memory file itself, through the control
    // socket, which is also faster to open and map than payload/<id>. If that fails, payload/<id>,
    // which is as good with FUSE passthrough. Without passthrough the daemon would fill a mapping
    // page by page and leave SIGBUS behind when it ends, so make a copy.
    Expected<Fd> memory_of(std::uint64_t id, const PayloadRef& ref) {
        constexpr const char* kOperation = "receive payload";
        const bool is_copy = ref.pool != 0;  // the daemon makes it when payload/<id> is opened
        if (!is_copy && !directory_->mount().empty()) {
            auto reply =
                Connection::request(directory_->mount(), ControlOp::kPayloadFd, ControlId{id});
            if (reply && reply->fds.size() == 1 && has_size(reply->fds[0].get(), ref.size) &&
                (seals_of(reply->fds[0].get()) & F_SEAL_SHRINK) != 0)
                return std::move(reply->fds[0]);
        }
        // The payloads of a subscription lie in its topic's directory.
        const std::string name =
            (directory_->is_subscription() ? "../../payload/" : "payload/") + std::to_string(id);
        Fd file(open_at(directory_->fd(), name.c_str(), O_RDONLY));
        if (!file) return last_error(kOperation);
        if (has_passthrough()) return file;
        auto copy = make_memfd("ipcfs-copy", 0, 0, kOperation);
        while (copy) {
            const ssize_t done = ::sendfile(copy->get(), file.get(), nullptr, kCopied);
            if (done < 0 && errno != EINTR) return last_error(kOperation);
            if (done == 0) break;
        }
        return copy;
    }

    bool has_passthrough() {
        if (!passthrough_) {
            const std::string name = directory_->mount() + "/kern/ipc/version";
            passthrough_ =
                read_start(AT_FDCWD, name.c_str()).find("\npassthrough on\n") != std::string::npos;
        }
        return *passthrough_;
    }

    Expected<void> open_pooled(std::shared_ptr<Hold>& hold, const PayloadRef& ref,
                               const FrameHeader& header) {
        // A message that may be redelivered must keep its chunk, so the lease keeps it and the
        // reader gets a copy.
        if (leased_) return open_copy(hold, ref, header.payload_id);
        auto pool = pools_.find(directory_->mount(), ref.pool, header.sender_pid);
        if (!pool) {
            if (is_temporary(pool.error().code)) return std::move(pool).error();
            // For example without a control socket: use a sealed copy. The chunk returns to its
            // sender when this process ends.
            return open_copy(hold, ref, header.payload_id);
        }
        const auto bytes = (*pool)->bytes(ref);
        if (!bytes) {
            hold->fail(Error{EPROTO, "receive payload", "no such chunk"});
            return {};
        }
        if (accept_pooled_) {
            hold->set_chunk(std::move(*pool), *bytes);
            return {};
        }
        // The daemon copies the chunk when the file is opened; then the chunk can be given back.
        if (auto opened = open_copy(hold, ref, header.payload_id); !opened) return opened;
        Hold(ref, header.payload_id, directory_->mount()).set_chunk(std::move(*pool), *bytes);
        return {};
    }

    Expected<void> open_copy(std::shared_ptr<Hold>& hold, PayloadRef ref, std::uint64_t id) {
        ref.kind = PayloadKind::kSealed;
        hold = std::make_shared<Hold>(ref, id, directory_->mount());
        return open_sealed(*hold, id);
    }

    static constexpr std::size_t kCopied = std::size_t{1} << 20;  // bytes copied by one call

    const std::shared_ptr<const Directory> directory_;
    const bool accept_pooled_;
    const bool leased_;
    PoolMaps pools_;
    std::optional<bool> passthrough_;  // set once known
};

}  // namespace ipcfs::detail
