// Clients that send a message and wait until the server has acknowledged it: what the group durable
// compares. One sender is one client with a connection of its own, used by one thread at a time.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "daemons.hpp"
#include "measure.hpp"

namespace ipcfs::bench {

class Sender {
public:
    virtual ~Sender() = default;
    // Returns when it is acknowledged; throws when it is refused.
    virtual void send(std::span<const std::byte> body) = 0;
};
// A sender whose two halves can be told apart, so that one thread can serve many connections.
class SplitSender : public Sender {
public:
    void send(std::span<const std::byte> body) final {
        submit(body);
        await();
    }
    virtual void submit(std::span<const std::byte> body) = 0;
    virtual void await() = 0;
    virtual int fd() const = 0;
};

using Senders = std::vector<std::unique_ptr<Sender>>;

// How often all of them together sent `body` in a second, each from a thread of its own, within
// `lasting` ns; and how long one took: median and 99th percentile, ns.
Figures rate_of_threads(std::span<const std::unique_ptr<Sender>> senders,
                        std::span<const std::byte> body, std::int64_t lasting);
// The same with one thread that serves all connections by epoll.
Figures rate_of_one_thread(std::span<const std::unique_ptr<Sender>> senders,
                           std::span<const std::byte> body, std::int64_t lasting);

// redis-server with an append-only file that is synced before a command is answered, and nothing
// else that it does to a disk. XADD to one stream, over a Unix socket.
class Redis {
public:
    // `fsync`: always, everysec or no.
    Redis(const Run& run, const std::string& fsync);
    std::unique_ptr<Sender> sender() const;
    // Forgets all messages.
    void empty() const;
    // Sends that many without waiting for each.
    void fill(unsigned count, std::span<const std::byte> body) const;
    // Ends it and starts it again: the time from its start until it serves, ns. Throws unless it then
    // has `count` messages.
    double restart(unsigned count);
    static bool there() { return has_program("redis-server"); }

private:
    void start();
    const std::string directory_, fsync_;
    std::string socket_;
    std::unique_ptr<Daemon> daemon_;
};

// nats-server with a JetStream stream kept in files; published with a reply subject, to which the
// server sends its acknowledgement. Over the loopback, the only thing it listens on.
class Nats {
public:
    explicit Nats(const Run& run);
    std::unique_ptr<Sender> sender() const;
    void empty() const;
    static bool there() { return has_program("nats-server"); }

private:
    unsigned port_ = 0;
    std::unique_ptr<Daemon> daemon_;
};

}  // namespace ipcfs::bench
