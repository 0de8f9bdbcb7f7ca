// The control connection: requests to the daemon that files cannot carry. Each process has one for
// each mount, found through kern/ipc/control and shared by all users. The protocol is in
// control.hpp. Internal to the client header.
//
// Any thread may call. As long as no request has a push handler, callers take turns: each sends its
// request and reads its own reply, without any thread. From the first request with a push handler
// on, the control reactor reads, wakes the callers and runs the handlers. A forked child never uses
// its parent's connections: get() makes it a new one.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <fcntl.h>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/un.h>
#include <type_traits>
#include <utility>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/mount.hpp>
#include <ipcfs/packet.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/reactor.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs::detail {

class Connection : public std::enable_shared_from_this<Connection> {
public:
    // Receives the kLazyServe packets of one payload, then one kLazyGone (also if the daemon is
    // gone). Runs on the reactor, one at a time, without locks; must not throw or block for long.
    using PushHandler = std::function<void(Packet&&)>;

    // This process's connection to the daemon of `mount`; connects if there is no working one.
    static Expected<std::shared_ptr<Connection>> get(const std::string& mount) {
        Registry& registry = of_process(registry_);
        const std::scoped_lock hold(registry.mutex);
        std::shared_ptr<Connection>& known = registry.by_mount[mount];
        if (known && !known->broken()) return known;
        auto made = connect(mount);
        if (!made) return std::move(made).error();
        known = *made;
        return std::move(made).value();
    }

    // get(mount)->call(...); retries once if the connection had died unnoticed.
    template <class Body>
    static Expected<Packet> request(const std::string& mount, ControlOp op, const Body& body,
                                    std::initializer_list<std::string_view> texts = {},
                                    std::span<const int> fds = {}) {
        for (int attempt = 0;; ++attempt) {
            auto connection = get(mount);
            if (!connection) return std::move(connection).error();
            auto reply = (*connection)->call(op, body, texts, fds);
            const bool stale = !reply && reply.error().code == EPIPE && (*connection)->broken();
            if (!stale || attempt > 0) return reply;
        }
    }

    // Sends a request and waits for its reply. An error reply becomes the Error, with the daemon's
    // text. EPIPE: the daemon was gone and nothing was sent; ECONNRESET: it went before it replied;
    // EPROTO: the reply was malformed. `served`, if given, handles pushes for the id at the start
    // of the reply, from the first one on.
    template <class Body>
    Expected<Packet> call(ControlOp op, const Body& body,
                          std::initializer_list<std::string_view> texts = {},
                          std::span<const int> fds = {}, const PushHandler& served = {}) {
        static_assert(std::is_trivially_copyable_v<Body>);
        return call_bytes(op, std::as_bytes(std::span(&body, 1)), texts, fds, served);
    }

    // Sends a request whose outcome does not matter. Never blocks: if it cannot be sent now, it
    // goes with the next request.
    template <class Body>
    void post_later(ControlOp op, const Body& body) {
        if (epoch_ != process_epoch()) return;
        const auto bytes = std::as_bytes(std::span(&body, 1));
        {
            const std::scoped_lock hold(outbox_mutex_);
            outbox_.emplace_back(op, std::vector<std::byte>(bytes.begin(), bytes.end()));
        }
        const std::unique_lock calling(call_mutex_, std::try_to_lock);
        if (calling.owns_lock()) flush_outbox();
    }

    // Sends a packet that has no reply.
    template <class Body>
    Expected<void> post(ControlOp op, const Body& body) {
        ControlHeader header;
        header.op = static_cast<std::uint16_t>(op);
        const std::scoped_lock calling(call_mutex_);
        return send_packet(socket_.get(), header, std::as_bytes(std::span(&body, 1)), {}, {},
                           operation_of(op));
    }

    // Removes the push handler of `id`. When this returns the handler is not running and will not
    // run again, unless it is called from the handler itself.
    void unserve(std::uint64_t id) {
        std::shared_ptr<PushHandler> ended;  // destroyed after the lock is released
        std::unique_lock hold(mutex_);
        if (auto node = handlers_.extract(id)) ended = std::move(node.mapped());
        if (reactor_.is_here()) return;
        changed_.wait(hold, [&] { return running_ != id; });
    }

    bool broken() const noexcept { return broken_.load(std::memory_order_relaxed); }
    const std::string& mount() const noexcept { return mount_; }
    std::uint64_t daemon_pid() const noexcept { return welcome_.pid; }

    Connection(std::string mount, Fd socket)
        : mount_(std::move(mount)), socket_(std::move(socket)), epoch_(process_epoch()) {}
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    // Says hello on a socket that is connected already; get() does the rest.
    Expected<void> greet() {
        auto reply = call(ControlOp::kHello, ControlHello{});
        // Rejected at a limit before the hello: the daemon has sent the reason.
        if (!reply && reply.error().code == EPIPE) reply = read_reply({}, "control hello");
        if (!reply) return std::move(reply).error();
        welcome_ = reply->as<ControlWelcome>();
        if (welcome_.version < kControlVersion)
            return Error{EPROTONOSUPPORT, "control hello", "the daemon is older than this program"};
        return {};
    }

private:
    struct Registry {
        explicit Registry(std::uint64_t made_in) : epoch(made_in) {}
        const std::uint64_t epoch;
        std::mutex mutex;
        std::map<std::string, std::shared_ptr<Connection>> by_mount;
    };
    struct Call {
        std::optional<Expected<Packet>> outcome;
        PushHandler served;
    };

    inline static constinit std::atomic<Registry*> registry_{nullptr};

    static Expected<std::shared_ptr<Connection>> connect(const std::string& mount) {
        constexpr const char* kOperation = "connect to kern/ipc/control";
        // Connect through /proc/self/fd, since a long path does not fit in sun_path.
        const std::string link = mount + "/kern/ipc/control";
        const Fd place(open_at(AT_FDCWD, link.c_str(), O_PATH));
        if (!place) return last_error(kOperation);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d", place.get());
        Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        if (!socket) return last_error(kOperation);
        int connected = 0;
        do {
            connected =
                ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
        } while (connected != 0 && errno == EINTR);
        if (connected != 0 && errno != EISCONN) return last_error(kOperation);
        auto made = std::make_shared<Connection>(mount, std::move(socket));
        if (auto greeted = made->greet(); !greeted) return std::move(greeted).error();
        return made;
    }

    Expected<Packet> call_bytes(ControlOp op, std::span<const std::byte> body,
                                std::initializer_list<std::string_view> texts,
                                std::span<const int> fds, PushHandler served) {
        const char* operation = operation_of(op);
        if (epoch_ != process_epoch()) return Error{EPIPE, operation, "inherited by fork"};
        Call mine;
        mine.served = std::move(served);
        std::unique_lock calling(call_mutex_);
        if (broken()) return Error{EPIPE, operation};
        flush_outbox();
        if (mine.served && !threaded_) {
            if (auto started = start_service(); !started) return std::move(started).error();
        }
        ControlHeader header;
        header.op = static_cast<std::uint16_t>(op);
        header.tag = next_tag_ = next_tag_ == ~std::uint32_t{0} ? 1 : next_tag_ + 1;
        if (threaded_) {
            const std::scoped_lock hold(mutex_);
            if (broken()) return Error{EPIPE, operation};
            calls_[header.tag] = &mine;
        }
        auto sent = send_packet(socket_.get(), header, body, texts, fds, operation);
        if (!sent) {
            if (sent.error().code == EPIPE) broken_ = true;
            if (threaded_) {
                // The reactor may have completed the call with an error; make sure that it does not
                // find it later.
                const std::scoped_lock hold(mutex_);
                calls_.erase(header.tag);
            }
            return std::move(sent).error();
        }
        if (!threaded_) return read_reply(header, operation);
        calling.unlock();
        std::unique_lock hold(mutex_);
        changed_.wait(hold, [&] { return mine.outcome.has_value(); });
        hold.unlock();
        return check_reply(std::move(*mine.outcome), header, operation);
    }

    // With call_mutex_ held. These requests have tag 0, so their replies are ignored.
    void flush_outbox() {
        const std::scoped_lock hold(outbox_mutex_);
        while (!outbox_.empty()) {
            ControlHeader header;
            header.op = static_cast<std::uint16_t>(outbox_.front().first);
            auto sent = send_packet(socket_.get(), header, outbox_.front().second, {}, {}, "post",
                                    MSG_DONTWAIT);
            if (!sent && sent.error().code == EAGAIN) return;
            outbox_.pop_front();
        }
    }

    Expected<Packet> read_reply(const ControlHeader& asked, const char* operation) {
        while (true) {
            auto packet = receive_packet(socket_.get(), operation);
            if (!packet) {
                broken_ = true;
                return packet;
            }
            if (packet->header.op == static_cast<std::uint16_t>(ControlOp::kReply)) {
                // A reply without a request: the daemon rejects the connection.
                broken_ = true;
                return Error{packet->header.error, operation, std::string(packet->text())};
            }
            if (packet->header.tag == asked.tag)
                return check_reply(std::move(packet), asked, operation);
        }
    }

    static Expected<Packet> check_reply(Expected<Packet> packet, const ControlHeader& asked,
                                        const char* operation) {
        if (!packet) return Error{packet.error().code, operation, packet.error().reason};
        const auto reply = static_cast<std::uint16_t>(ControlOp::kReply);
        if (packet->header.op != (asked.op | reply)) return Error{EPROTO, operation};
        const int error = packet->header.error;
        if (error == 0) return packet;
        if (error < 0 || error > 4095) return Error{EPROTO, operation};
        return Error{error, operation, std::string(packet->text())};
    }

    // With call_mutex_ held, so no call is in progress. The reactor keeps this object alive until
    // the connection breaks.
    Expected<void> start_service() {
        auto watched = reactor_.add(
            socket_.get(), [self = shared_from_this()](std::uint64_t id) { self->serve(id); });
        if (!watched) return Error{watched.error().code, "start service thread"};
        threaded_ = true;
        return {};
    }

    void serve(std::uint64_t watch) {
        auto packet = receive_packet(socket_.get(), "serve");
        if (!packet) {
            reactor_.remove(watch);
            return fail_all(packet.error());
        }
        const auto reply = static_cast<unsigned>(ControlOp::kReply);
        if ((packet->header.op & reply) != 0) return complete(std::move(*packet));
        const auto id = packet->as<ControlId>().id;  // every push begins with an id
        push(id, std::move(*packet));
    }

    void complete(Packet&& packet) {
        const std::scoped_lock hold(mutex_);
        const auto found = calls_.find(packet.header.tag);
        if (found == calls_.end()) return;
        Call& call = *found->second;
        if (call.served && packet.header.error == 0)
            handlers_[packet.as<ControlId>().id] =
                std::make_shared<PushHandler>(std::move(call.served));
        call.outcome.emplace(std::move(packet));
        calls_.erase(found);
        changed_.notify_all();
    }

    void push(std::uint64_t id, Packet&& packet) {
        std::shared_ptr<PushHandler> handler;
        {
            const std::scoped_lock hold(mutex_);
            const auto found = handlers_.find(id);
            if (found == handlers_.end()) return;
            handler = found->second;
            if (packet.op() == ControlOp::kLazyGone) handlers_.erase(found);
            running_ = id;
        }
        (*handler)(std::move(packet));
        handler.reset();
        const std::scoped_lock hold(mutex_);
        running_ = 0;
        changed_.notify_all();
    }

    void fail_all(const Error& why) {
        broken_ = true;
        ::shutdown(socket_.get(), SHUT_RDWR);
        std::vector<std::uint64_t> served;
        {
            const std::scoped_lock hold(mutex_);
            for (auto& [tag, call] : calls_) call->outcome.emplace(why);
            calls_.clear();
            for (const auto& [id, handler] : handlers_) served.push_back(id);
            changed_.notify_all();
        }
        for (const std::uint64_t id : served) {
            Packet gone;
            gone.header.op = static_cast<std::uint16_t>(ControlOp::kLazyGone);
            gone.body.resize(sizeof(ControlId));
            std::memcpy(gone.body.data(), &id, sizeof id);
            push(id, std::move(gone));
        }
    }

    const std::string mount_;
    const OwnFd socket_;
    const std::uint64_t epoch_;
    Reactor& reactor_ = Reactor::of_process(Reactor::Purpose::kControl);
    ControlWelcome welcome_;
    std::atomic<bool> broken_{false};

    // Held for a whole call; once the reactor reads, only while sending. Lock order: before mutex_.
    std::mutex call_mutex_;
    bool threaded_ = false;
    std::uint32_t next_tag_ = 0;

    std::mutex outbox_mutex_;  // lock order: after call_mutex_
    std::deque<std::pair<ControlOp, std::vector<std::byte>>> outbox_;

    std::mutex mutex_;  // guards what reactor and callers share, below
    std::condition_variable changed_;
    std::map<std::uint32_t, Call*> calls_;
    std::map<std::uint64_t, std::shared_ptr<PushHandler>> handlers_;
    std::uint64_t running_ = 0;  // the id whose handler runs
};

}  // namespace ipcfs::detail
