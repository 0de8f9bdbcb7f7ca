// One client's connection: reads requests, performs them, and writes replies as the client takes
// them. Runs on the loop. Pools, watches and lazy payloads opened over a connection end with it.
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

// Shared by all connections of a server.
struct ServerContext {
    ServerContext(ServerConfig of_server, boost::asio::io_context& io, tree::Exchange& calls,
                  Logger& logger)
        : config(std::move(of_server)), loop(io), exchange(calls), log(logger) {}

    const ServerConfig config;
    boost::asio::io_context& loop;
    tree::Exchange& exchange;
    Logger& log;
    Counters counters;
    // Runs calls that a client's descriptor can block for ever. Its jobs own all they use.
    std::shared_ptr<Executor> executor = std::make_shared<Executor>(
        "ipcfs-foreign",
        Executor::Limits{
            .threads = 8, .user_jobs = kMaxStuck, .patience = kSecond, .may_abandon = true});
    std::function<void(Connection&)> ended;  // called on the loop, once a connection
};

class Connection : public std::enable_shared_from_this<Connection> {
public:
    static constexpr std::size_t kPacketsPerTurn = 16;
    static constexpr std::size_t kMaxOutgoing = 256;  // replies queued beyond the kernel's buffer
    static constexpr std::size_t kMaxPending = 64;    // requests to be answered later
    static constexpr std::size_t kMaxPools = 64;
    static constexpr std::size_t kMaxWatches = 64;

    Connection(ServerContext& around, Fd socket, Fd process, tree::Caller caller,
               access::Charge charge);

    void start();
    // Closes the connection immediately. Must be called before destruction; later calls do nothing.
    // A non-empty `why` is logged as the daemon's reason; empty means that the client ended it.
    void close(std::string_view why) noexcept;

    const tree::Caller& caller() const noexcept { return caller_; }

    // Messages to the producer of a lazy payload. On the loop.
    void serve(const ControlLazy& wanted, Guest memory, Guest link);
    void payload_gone(std::uint64_t payload);

private:
    // A request that waits until its memory is sealed; `packet` holds its texts.
    struct Deferred;
    struct Outgoing {
        Packet packet;
        std::vector<Guest> fds;
    };

    void await_packets();
    void read_packets();
    void handle_packet(std::span<const std::byte> packet, std::vector<Guest>& fds);
    void enqueue(Packet packet, std::vector<Guest> fds);
    void flush();
    bool open() const noexcept { return socket_.is_open(); }

    // In operations.cpp:
    void perform(const Request& request, std::span<const std::byte> packet,
                 std::vector<Guest>& fds);
    void seal_then(const Request& request, std::span<const std::byte> packet, Guest memory);
    void with_memory(const Request& request, Guest memory);
    void watch(const Request& request, std::vector<Guest>& fds);
    void attach(const Request& request, std::vector<Guest>& fds);
    void enqueue_memory(const Request& request, Guest memory);
    void hand_off(const Request& request);
    tree::Exchange::Done deferred_reply(const Request& request);
    template <class T>
    void answer(const Request& request, const T& body, std::vector<Guest>&& fds = {},
                std::string_view text = {});
    void refuse(const Request& request, const Fault& why);
    void refuse(std::uint16_t op, std::uint32_t tag, const Fault& why);
    // Wraps a descriptor that this daemon opened.
    Guest own(Fd fd) const { return Guest(std::move(fd), around_.executor, 0); }

    ServerContext& around_;
    boost::asio::posix::stream_descriptor socket_;
    boost::asio::posix::stream_descriptor process_;  // a pidfd
    const tree::Caller caller_;
    const access::Charge charge_;
    std::shared_ptr<Mailbox> mailbox_;  // set by the first lazy offer

    std::deque<Outgoing> outgoing_;
    std::deque<std::uint64_t> gone_;  // payloads to report once outgoing_ is empty
    bool writing_ = false;            // waits until the socket is writable
    bool sealing_ = false;            // reads no more packets meanwhile, to keep their order
    std::size_t pending_ = 0;
    std::set<std::uint64_t> pools_;
    std::map<std::uint64_t, std::unique_ptr<tree::Watch>> watches_;
    std::uint64_t last_watch_ = 0;
};

// The reference that lazy payloads hold to the connection that offered them. Any thread.
class Mailbox final : public payload::Producer, public std::enable_shared_from_this<Mailbox> {
public:
    static constexpr int kMaxServes = 64;  // in flight to one producer

    Mailbox(ServerContext& around, std::weak_ptr<Connection> to)
        : loop_(around.loop), executor_(around.executor), to_(std::move(to)) {}

    bool serve(const ControlLazy& wanted, Fd memory, Fd link) noexcept override;
    void gone(std::uint64_t payload) noexcept override;

    // The connection has ended.
    void close() noexcept { is_open_ = false; }
    // A serve request was written to the producer's socket, or is dropped.
    void served() noexcept { --serves_; }

private:
    boost::asio::io_context& loop_;
    const std::shared_ptr<Executor> executor_;
    const std::weak_ptr<Connection> to_;
    std::atomic<bool> is_open_{true};
    std::atomic<int> serves_{0};
};

}  // namespace ipcfs::control
