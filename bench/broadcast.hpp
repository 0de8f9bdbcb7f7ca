// One message to many subscribers: the systems that the group delivery compares, and a fleet of
// subscribers that really receive. Numbered messages, so that what is lost, doubled or out of order
// shows.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "daemons.hpp"
#include "processes.hpp"
#include "senders.hpp"
#include "servers.hpp"

namespace ipcfs::bench {

// One subscriber's connection. One thread.
class Subscription {
public:
    virtual ~Subscription() = default;
    virtual int fd() const = 0;
    // One receiving call: waits where the subscription was made to wait; else 0 when nothing is there.
    // How many messages it brought, all checked: `wrong` grows by those out of order.
    virtual unsigned receive(std::uint64_t& wrong) = 0;

protected:
    // Of the number that a message carries; the first is free.
    void check(std::uint32_t number, std::uint64_t& wrong) {
        if (known_ && number != last_ + 1) ++wrong;
        known_ = true;
        last_ = number;
    }

private:
    bool known_ = false;
    std::uint32_t last_ = 0;
};

// A system that carries a message to all subscribers. Usable in forked children.
class Broadcaster {
public:
    virtual ~Broadcaster() = default;
    virtual std::unique_ptr<Subscription> subscribe(bool waits) const = 0;
    // send() returns when the system has the message: not when it is delivered.
    virtual std::unique_ptr<Sender> publisher() const = 0;
    virtual pid_t server() const = 0;
};

// A topic of an ipcfsd: each subscriber has opened its `stream`.
class Topic final : public Broadcaster {
public:
    // `framed`: framed/stream, several messages a read, as the client header receives.
    Topic(const Server& server, std::string name, bool framed)
        : server_(server), name_(std::move(name)), framed_(framed) {}
    std::unique_ptr<Subscription> subscribe(bool waits) const override;
    std::unique_ptr<Sender> publisher() const override;
    pid_t server() const override { return server_.pid(); }

private:
    const Server& server_;
    const std::string name_;
    const bool framed_;
};

// A signal on a bus of its own: dbus-daemon with the limits of a session bus, and a match rule a
// subscriber.
class DBus final : public Broadcaster {
public:
    explicit DBus(const Run& run);
    std::unique_ptr<Subscription> subscribe(bool waits) const override;
    std::unique_ptr<Sender> publisher() const override;
    pid_t server() const override { return daemon_->pid(); }
    static bool there() { return has_program("dbus-daemon"); }

private:
    std::string socket_;
    std::unique_ptr<Daemon> daemon_;
};

// Many subscribers, shared among a few processes.
class Fleet {
public:
    enum class Way {
        kEpoll,    // a thread a process, with epoll: one receiving call an event
        kEdge,     // the same, edge-triggered: receiving calls until nothing is there
        kBlocked,  // a thread a subscriber, waiting in the receiving call
    };
    // Returns when all have subscribed; throws when they do not.
    Fleet(const Broadcaster& system, unsigned subscribers, Way way);
    Fleet(const Fleet&) = delete;
    Fleet& operator=(const Fleet&) = delete;
    ~Fleet();

    // Publishes `count` messages one after the other and waits until every subscriber has them all.
    // ns of that; ns until the last was published; CPU time of all processes, ns.
    Figures publish(Sender& to, unsigned count);
    std::uint64_t wrong() const;

private:
    struct Shared {
        std::atomic<std::uint64_t> received{0}, target{0}, wrong{0};
        std::atomic<unsigned> subscribed{0};
    };
    void received(unsigned count, std::uint64_t wrong);
    void serve(const Broadcaster& system, unsigned subscribers, Way way);
    double cpu() const;

    const Broadcaster& system_;
    const unsigned subscribers_;
    Shared* shared_;
    Fd done_;
    std::uint32_t number_ = 0;
    std::vector<pid_t> pids_;
};

// "own CPU time", ns: of this process, all its threads.
double own_cpu_time();

}  // namespace ipcfs::bench
