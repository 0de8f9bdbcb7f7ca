// The control socket: the door for what files cannot carry, above all descriptors
// (include/ipcfs/control.hpp). It runs on the daemon's loop, never waits for a client, and trusts
// no client: the kernel says who it is, the tree what it may do.
//
// A descriptor from a client may be a trap: one of a file system that never answers, a lingering
// socket, a file whose lock is held. Calls that could block run on an executor's threads.
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
    std::string mount;                   // of the tree, sent to clients
    std::size_t max_connections = 1024;  // of all users
    std::size_t max_per_user = 256;      // does not apply to root
};

// Readable on any thread.
struct Counters {
    std::atomic<std::uint64_t> connections{0};  // open now
    std::atomic<std::uint64_t> foreign{0};      // descriptors received whose close(2) may block
    std::atomic<std::uint64_t> aborted{0};      // connections that the daemon closed
};

class Server {
public:
    // All references must outlive the server, except that the loop may be destroyed before or after.
    Server(ServerConfig config, boost::asio::io_context& loop, tree::Exchange& exchange,
           access::Ledger& ledger, Logger& log);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    // Starts listening. Call before the loop runs, or on it.
    Result<void> start();
    // Closes all connections and removes the socket. Any thread: waits for the loop to do it, or
    // does it itself if no loop runs. Later calls do nothing; the destructor calls it.
    void stop() noexcept;

    const Counters& counters() const noexcept;
    // Threads that a client's descriptor has blocked for over a second.
    std::size_t stuck() const;

private:
    struct State;
    std::shared_ptr<State> state_;
};

}  // namespace ipcfs::control
