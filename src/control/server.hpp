// The control socket: the door for what no file can carry, above all descriptors
// (include/ipcfs/control.hpp). It runs on the daemon's loop, never waits for a client, and believes
// nothing that one says: the kernel tells who it is, the tree what it may do.
//
// Descriptors of others may be traps: of a file system that never answers, a socket that lingers, a
// file whose lock is held. What could wait is done by an executor's threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include <access/account.hpp>
#include <base/log.hpp>
#include <base/result.hpp>
#include <tree/exchange.hpp>

namespace boost::asio {
class io_context;
}

namespace ipcfs::control {

// A user's jobs at a time that may hang.
constexpr unsigned kMaxStuck = 2;

struct ServerConfig {
    std::string path;                    // of the socket
    std::string mount;                   // of the tree, as clients are told
    std::size_t max_connections = 1024;  // in all
    std::size_t max_per_user = 256;      // but for root
};

// Any thread may read them.
struct Counters {
    std::atomic<std::uint64_t> connections{0};  // now
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint64_t> turned_away{0};  // at a limit
    std::atomic<std::uint64_t> packets{0};      // requests
    std::atomic<std::uint64_t> refused{0};      // of them, answered with an error
    std::atomic<std::uint64_t> foreign{0};      // descriptors that came and may be traps
    std::atomic<std::uint64_t> cut{0};          // connections that the daemon ended
};

class Server {
public:
    // Everything given outlives it; the loop may be destroyed later or earlier.
    Server(ServerConfig config, boost::asio::io_context& loop, tree::Exchange& exchange,
           access::Ledger& ledger, Logger& log);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Listens. Before the loop runs, or on it.
    Result<void> start();
    // Ends all connections and removes the socket. On any thread: waits for the loop to do it, or
    // does it where no loop runs. Once; the destructor does it if need be.
    void stop() noexcept;

    const Counters& counters() const noexcept;
    // Threads that a client's descriptor keeps for over a second.
    std::size_t stuck() const;

private:
    struct State;
    std::shared_ptr<State> state_;
};

}  // namespace ipcfs::control
