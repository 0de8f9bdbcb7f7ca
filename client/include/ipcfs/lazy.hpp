// Lazy payloads, the producer's side: the body stays in this process's memory, and receivers get it
// page by page, on first access. The receiver's side is page_map.hpp.
//
//     auto offered = ipcfs::offer(*channel, tensor);          // queued at once, nothing copied
//     if (!offered) return fail(offered.error().message());
//     offered->wait_gone();                                   // until nobody needs it any more
//
// Threads: any thread may call any function of a LazyOffer except move and destruction. One thread
// an offer, started with its first receiver, serves pages; one more is shared by all offers to a
// mount. Both block all signals. A forked child does not share its parent's offers.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ipcfs/channel.hpp>
#include <ipcfs/connection.hpp>
#include <ipcfs/lazy_range.hpp>
#include <ipcfs/lazy_server.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/room.hpp>

namespace ipcfs {

struct LazyOptions {
    SendOptions send{};  // timeout: for room in the channel
    // Bytes provided for one access: first_fill if it continues no earlier access, up to read_ahead
    // if the receiver reads on.
    std::size_t first_fill = std::size_t{16} << 10;
    std::size_t read_ahead = std::size_t{4} << 20;
    // How long the serving thread polls for the next access before it sleeps. Zero saves CPU time
    // and costs two wake-ups an access.
    std::chrono::microseconds spin{50};
};

// A queued lazy message. Destroying it ends the service: receivers that lack pages then see the
// producer as gone.
class LazyOffer {
public:
    // Receivers so far and now, page faults and requests served, pages of 4 KiB sent.
    using Statistics = detail::LazyServer::Totals;

    LazyOffer(LazyOffer&&) noexcept = default;
    LazyOffer& operator=(LazyOffer&& other) noexcept {
        if (this != &other) {
            end();
            connection_ = std::move(other.connection_);
            state_ = std::move(other.state_);
            id_ = other.id_;
        }
        return *this;
    }
    // After this returns, the memory is not read any more. Does not wait for receivers.
    ~LazyOffer() { end(); }

    std::uint64_t id() const noexcept { return id_; }
    Statistics statistics() const { return state_->server.totals(); }
    // Waits until no receiver can need the payload any more: its message was received, dropped or
    // removed, and no receiver has it mapped. (A Channel holds the last message that it received
    // until it receives another.) ETIMEDOUT.
    Expected<void> wait_gone(Timeout timeout = kForever) {
        const detail::Deadline deadline(timeout);
        {
            std::unique_lock hold(state_->mutex);
            if (!state_->changed.wait_for(hold, deadline.left(), [&] { return state_->gone; }))
                return Error{ETIMEDOUT, "wait for lazy payload"};
        }
        if (state_->server.wait_idle(deadline.left())) return {};
        return Error{ETIMEDOUT, "wait for lazy payload"};
    }

    friend Expected<LazyOffer> offer(Channel& channel, std::span<const std::byte> memory,
                                     const LazyOptions& options);

private:
    struct State {
        State(std::span<const std::byte> memory, const detail::LazyTuning& tuning,
              detail::LazyServer::Report report)
            : server(memory, tuning, std::move(report)) {}

        detail::LazyServer server;
        std::mutex mutex;
        std::condition_variable changed;
        bool gone = false;
    };

    LazyOffer(std::shared_ptr<detail::Connection> connection, std::shared_ptr<State> state,
              std::uint64_t id)
        : connection_(std::move(connection)), state_(std::move(state)), id_(id) {}

    // Runs on the connection's reactor.
    static void pushed(State& state, detail::Packet&& packet) {
        if (packet.op() == ControlOp::kLazyServe && packet.fds.size() == 2) {
            state.server.attach(packet.as<ControlLazy>(), std::move(packet.fds[0]),
                                std::move(packet.fds[1]));
        } else if (packet.op() == ControlOp::kLazyGone) {
            const std::scoped_lock hold(state.mutex);
            state.gone = true;
            state.changed.notify_all();
        }
    }

    void end() noexcept {
        if (!state_) return;
        // A forked child has no such threads, and its copies of the locks may be held.
        if (epoch_ == detail::process_epoch()) {
            connection_->unserve(id_);
            state_->server.stop();
        }
        state_.reset();
        connection_.reset();
    }

    std::shared_ptr<detail::Connection> connection_;
    std::shared_ptr<State> state_;
    std::uint64_t id_ = 0;
    std::uint64_t epoch_ = detail::process_epoch();
};

// Sends a message whose body is `memory`, of 1 byte up to the channel's max-payload, without
// copying it. The memory must stay valid while the LazyOffer lives, and should not change: a
// receiver sees each page as of the moment it was sent. Errors as Channel::send().
inline Expected<LazyOffer> offer(Channel& channel, std::span<const std::byte> memory,
                                 const LazyOptions& options = {}) {
    constexpr const char* kOperation = "offer lazy payload";
    const std::string mount = channel.mount();
    if (mount.empty())
        return Error{ENOTSUP, kOperation, "the channel's mount has no control socket"};
    std::vector<std::byte> storage;
    const auto whole = detail::with_texts(options.send, storage);
    if (!whole) return whole.error();
    ControlSend what = detail::control_send(*whole);
    what.size = memory.size();
    const detail::Deadline deadline(options.send.timeout);
    detail::RoomWait room;
    const detail::LazyTuning tuning{options.first_fill, options.read_ahead, options.spin};
    for (int attempt = 0;;) {
        auto connection = detail::Connection::get(mount);
        if (!connection) return std::move(connection).error();
        auto id = std::make_shared<std::atomic<std::uint64_t>>(0);
        const auto report = [id, weak = std::weak_ptr(*connection)](std::uint64_t faults,
                                                                    std::uint64_t pages) {
            if (const auto to = weak.lock())
                (void)to->post(ControlOp::kLazyReport, ControlLazyReport{*id, faults, pages});
        };
        auto state = std::make_shared<LazyOffer::State>(memory, tuning, report);
        const std::string path = channel.name();
        what.path_length = static_cast<std::uint32_t>(path.size());
        auto sent = (*connection)
                        ->call(ControlOp::kLazyOffer, what, {path, detail::as_text(storage)}, {},
                               [state, id](detail::Packet&& packet) {
                                   *id = packet.as<ControlId>().id;
                                   LazyOffer::pushed(*state, std::move(packet));
                               });
        if (sent) return LazyOffer(*connection, state, sent->as<ControlSent>().payload_id);
        const int code = sent.error().code;
        if (code == EPIPE && (*connection)->broken() && attempt++ == 0) continue;  // a new daemon?
        if (code != EAGAIN) return std::move(sent).error();
        auto queue = channel.send_fd();
        if (!queue) return std::move(queue).error();
        if (auto waited = room.wait(*queue, deadline, kOperation); !waited)
            return std::move(waited).error();
    }
}

}  // namespace ipcfs
