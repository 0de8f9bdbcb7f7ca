// One client's connection: reads requests, has them done, and writes replies as it takes them. Lives
// on the loop. Whatever was opened over it ends with it: pools, watches, lazy payloads.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <control/guest.hpp>
#include <control/packet.hpp>
#include <control/server.hpp>

#include <access/account.hpp>
#include <base/executor.hpp>
#include <base/log.hpp>
#include <tree/exchange.hpp>

namespace ipcfs::control {

class Connection;
class Mailbox;

// What all connections of a server share.
struct Surroundings {
    Surroundings(ServerConfig of_server, boost::asio::io_context& io, tree::Exchange& calls,
                 Logger& logger)
        : config(std::move(of_server)), loop(io), exchange(calls), log(logger) {}

    const ServerConfig config;
    boost::asio::io_context& loop;
    tree::Exchange& exchange;
    Logger& log;
    Counters counters;
    // For what a client's descriptor can make hang for ever. Its jobs own what they need.
    std::shared_ptr<Executor> executor = std::make_shared<Executor>(
        "ipcfs-foreign",
        Executor::Limits{
            .threads = 8, .user_jobs = kMaxStuck, .patience = kSecond, .may_abandon = true});
    std::function<void(Connection&)> ended;  // is called on the loop, once for each
};

class Connection : public std::enable_shared_from_this<Connection> {
public:
    static constexpr std::size_t kPacketsATurn = 16;
    static constexpr std::size_t kMaxOutgoing = 256;  // packets beyond what the kernel buffers
    static constexpr std::size_t kMaxPending = 64;    // requests whose answer comes later
    static constexpr std::size_t kMaxPools = 64;
    static constexpr std::size_t kMaxWatches = 64;

    Connection(Surroundings& around, Fd socket, Fd process, tree::Caller caller,
               access::Charge charge);

    void start();
    // Ends it: at once and once; before it is destroyed. Without `why` it was the client who did.
    void cut(std::string_view why) noexcept;

    const tree::Caller& caller() const noexcept { return caller_; }

    // To its producer. On the loop.
    void serve(const ControlLazy& wanted, Guest memory, Guest link);
    void payload_gone(std::uint64_t payload);

private:
    // A request whose memory is sealed elsewhere first: its texts are in `packet`.
    struct Deferred;
    struct Outgoing {
        Packet packet;
        std::vector<Guest> fds;
    };

    void await_packets();
    void read_packets();
    void take(std::span<const std::byte> packet, std::vector<Guest>& fds);
    void enqueue(Packet packet, std::vector<Guest> fds);
    void flush();
    bool open() const noexcept { return socket_.is_open(); }

    // src/control/operations.cpp
    void perform(const Request& request, std::span<const std::byte> packet,
                 std::vector<Guest>& fds);
    void seal_then(const Request& request, std::span<const std::byte> packet, Guest memory);
    void with_memory(const Request& request, Guest memory);
    void watch(const Request& request, std::vector<Guest>& fds);
    void attach(const Request& request, std::vector<Guest>& fds);
    void enqueue_memory(const Request& request, Guest memory);
    void hand_off(const Request& request);
    tree::Exchange::Done later(const Request& request);
    template <class T>
    void answer(const Request& request, const T& body, std::vector<Guest>&& fds = {},
                std::string_view text = {});
    void refuse(const Request& request, const Fault& why);
    void refuse(std::uint16_t op, std::uint32_t tag, const Fault& why);
    // One that this daemon opened.
    Guest own(Fd fd) const { return Guest(std::move(fd), around_.executor, 0); }

    Surroundings& around_;
    boost::asio::posix::stream_descriptor socket_;
    boost::asio::posix::stream_descriptor process_;  // a pidfd
    const tree::Caller caller_;
    const access::Charge charge_;
    std::shared_ptr<Mailbox> mailbox_;  // once it has offered something

    std::deque<Outgoing> outgoing_;
    std::deque<std::uint64_t> gone_;  // payloads; told when the queue is empty
    bool writing_ = false;            // waits for room in the socket
    bool sealing_ = false;            // reads no further packet meanwhile, to keep their order
    std::size_t pending_ = 0;
    std::set<std::uint64_t> pools_;
    std::map<std::uint64_t, std::unique_ptr<tree::Watch>> watches_;
    std::uint64_t last_watch_ = 0;
};

// What lazy payloads hold of the connection that offered them. Any thread may call.
class Mailbox final : public payload::Producer, public std::enable_shared_from_this<Mailbox> {
public:
    static constexpr int kMaxServes = 64;  // on their way to one producer

    Mailbox(Surroundings& around, std::weak_ptr<Connection> to)
        : loop_(around.loop), executor_(around.executor), to_(std::move(to)) {}

    bool serve(const ControlLazy& wanted, Fd memory, Fd link) noexcept override;
    void gone(std::uint64_t payload) noexcept override;

    // The connection has ended.
    void close() noexcept { is_open_ = false; }
    // A serve has reached the producer's socket, or never will.
    void served() noexcept { --serves_; }

private:
    boost::asio::io_context& loop_;
    const std::shared_ptr<Executor> executor_;
    const std::weak_ptr<Connection> to_;
    std::atomic<bool> is_open_{true};
    std::atomic<int> serves_{0};
};

}  // namespace ipcfs::control
