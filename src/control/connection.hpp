// One client's connection: reads requests, performs them, and writes replies as the client takes
// them. Runs on the loop. Pools, watches and lazy payloads opened over a connection end with it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <control/packet.hpp>
#include <control/server.hpp>
#include <control/socket.hpp>
#include <payload/memory.hpp>

#include <access/account.hpp>
#include <base/executor.hpp>
#include <base/log.hpp>
#include <tree/exchange.hpp>

namespace ipcfs::control {

class Connection;
class Mailbox;

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

    // Closes a connection of user `uid`; if unread descriptors may block that, on the executor.
    void close(Fd socket, uid_t uid) const {
        if (!shut_down(socket.get())) executor->add(uid, [fd = socket.release()] { ::close(fd); });
    }
};

class Connection : public std::enable_shared_from_this<Connection> {
public:
    static constexpr std::size_t kPacketsPerTurn = 16;
    static constexpr std::size_t kMaxOutgoing = 256;  // replies queued beyond the kernel's buffer
    static constexpr std::size_t kMaxPending = 64;    // requests to be answered later
    static constexpr std::size_t kMaxPools = 64;
    static constexpr std::size_t kMaxWatches = 64;

    Connection(ServerContext& context, Fd socket, Fd process, tree::Caller caller,
               access::Charge charge);

    void start();
    // Closes the connection immediately. Must be called before destruction; later calls do nothing.
    // A non-empty `why` is logged as the daemon's reason; empty means that the client ended it.
    void close(std::string_view why) noexcept;

    const tree::Caller& caller() const noexcept { return caller_; }

    // Messages to the producer of a lazy payload. On the loop.
    void serve(const payload::LazyRange& wanted, std::vector<ReceivedFd> memory_and_link);
    void payload_gone(std::uint64_t payload);

private:
    struct Outgoing {
        Packet packet;
        std::vector<ReceivedFd> fds;
    };
    // A request's packet and what came with it.
    struct Arrived {
        ReplyTo to;
        std::span<const std::byte> packet;
        std::vector<ReceivedFd>& fds;
    };

    bool open() const noexcept { return socket_.is_open(); }
    void when_readable(boost::asio::posix::stream_descriptor& descriptor,
                       void (Connection::*then)());
    void read_packets();
    void process_ended() { close({}); }
    void handle_packet(std::span<const std::byte> packet, std::vector<ReceivedFd>& fds);
    void enqueue(Packet packet, std::vector<ReceivedFd> fds);
    void flush();

    // In operations.cpp. Each request is answered with its reply or its fault, or later.
    Result<void> perform(const Arrived& at, const Hello& asked);
    Result<void> perform(const Arrived& at, const Send& asked);
    Result<void> perform(const Arrived& at, const OpenPool& asked);
    Result<void> perform(const Arrived& at, const MapPool& asked);
    Result<void> perform(const Arrived& at, const ClosePool& asked);
    Result<void> perform(const Arrived& at, const WatchByEventFd& asked);
    Result<void> perform(const Arrived& at, const WatchBySignal& asked);
    Result<void> perform(const Arrived& at, const Unwatch& asked);
    Result<void> perform(const Arrived& at, const OfferLazy& asked);
    Result<void> perform(const Arrived& at, const AttachLazy& asked);
    Result<void> perform(const Arrived& at, const ReportLazy& asked);
    Result<void> perform(const Arrived& at, const HandOff& asked);
    Result<void> perform(const Arrived& at, const Claim& asked);
    Result<void> perform(const Arrived& at, const PayloadFd& asked);
    std::optional<Result<void>> seal_first(const Arrived& at, payload::Sealing sealing);
    Result<void> keep_watch(const Arrived& at, Result<std::unique_ptr<tree::Watch>> made);
    Result<void> answer_memory(const Arrived& at, Result<tree::Claimed> claimed);
    Result<void> answer_pool(const Arrived& at, tree::PoolGrant grant);
    Result<tree::Exchange::Done> deferred_reply(ReplyTo to);
    template <class T>
    Result<void> answer(ReplyTo to, const T& body, std::vector<ReceivedFd> fds = {},
                        std::string_view text = {});
    void refuse(ReplyTo to, const Fault& why);
    std::vector<ReceivedFd> received(Fd first, Fd second = {}) const;

    ServerContext& context_;
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

    Mailbox(ServerContext& context, std::weak_ptr<Connection> to)
        : loop_(context.loop), executor_(context.executor), to_(std::move(to)) {}

    bool serve(const payload::LazyRange& wanted, Fd memory, Fd link) noexcept override;
    void gone(std::uint64_t payload) noexcept override;

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
