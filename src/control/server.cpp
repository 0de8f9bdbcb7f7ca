// Listening, admission limits, and the table of connections. On the loop; only stop() runs on any
// thread.
#include <algorithm>
#include <future>
#include <map>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <control/connection.hpp>
#include <control/server.hpp>

namespace ipcfs::control {
namespace asio = boost::asio;

namespace {

constexpr int kBacklog = 128;
constexpr int kAcceptsPerTurn = 16;
constexpr auto kRetryDelay = std::chrono::milliseconds(100);

}  // namespace

struct Server::State : std::enable_shared_from_this<State> {
    State(ServerConfig config, asio::io_context& loop, tree::Exchange& exchange,
          access::Ledger& accounts, Logger& log)
        : context(std::move(config), loop, exchange, log),
          ledger(accounts),
          listener(loop),
          retry_timer(loop) {
        context.ended = [this](Connection& connection) { forget(connection); };
    }

    void await_connections();
    void accept_some();
    void admit(Fd socket);
    void reject(Fd socket, uid_t uid, const Fault& why);
    void forget(Connection& connection);
    void end();
    template <class T>
    std::size_t count(T access::Subject::*whose, T value) const {
        return static_cast<std::size_t>(std::ranges::count_if(connections, [&](const auto& each) {
            return each.first->caller().subject.*whose == value;
        }));
    }

    ServerContext context;
    access::Ledger& ledger;
    asio::posix::stream_descriptor listener;
    asio::steady_timer retry_timer;
    std::map<Connection*, std::shared_ptr<Connection>> connections;
    std::atomic<bool> loop_runs{false};
    bool ended = false;
};

void Server::State::await_connections() {
    if (ended) return;
    listener.async_wait(asio::posix::descriptor_base::wait_read,
                        [weak = weak_from_this()](const boost::system::error_code& failed) {
                            auto self = weak.lock();
                            if (self && !failed && !self->ended) self->accept_some();
                        });
}

void Server::State::accept_some() {
    for (int turn = 0; turn < kAcceptsPerTurn; ++turn) {
        Fd socket(
            ::accept4(listener.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (socket) {
            admit(std::move(socket));
            continue;
        }
        if (errno == EAGAIN) break;
        if (errno == EINTR || errno == ECONNABORTED) continue;
        // Out of descriptors or memory: clients stay in the backlog, and accepting is retried.
        context.log.warn("control: cannot accept a connection, retrying: ", std::strerror(errno));
        retry_timer.expires_after(kRetryDelay);
        retry_timer.async_wait([weak = weak_from_this()](const boost::system::error_code& failed) {
            auto self = weak.lock();
            if (self && !failed) self->await_connections();
        });
        return;
    }
    await_connections();
}

void Server::State::admit(Fd socket) {
    auto peer = peer_of(socket.get());
    if (!peer) {
        context.log.warn("control: ", peer.error().message());
        return;
    }
    const uid_t uid = peer->subject.uid;
    if (connections.size() >= context.config.max_connections ||
        (uid != 0 && count(&access::Subject::uid, uid) >= context.config.max_per_user)) {
        return reject(std::move(socket), uid, Fault{EMFILE, "too many control connections"});
    }
    if (context.executor->is_overloaded(uid)) {
        return reject(std::move(socket), uid,
                      Fault{EBUSY, "this user's descriptors take too long to close"});
    }
    auto charge = access::Charge::take(ledger.account(uid), access::Resource::kOpenFiles, 1);
    if (!charge) {
        return reject(std::move(socket), uid, Fault{EDQUOT, "this user has too many open files"});
    }
    Fd process = peer_process(socket.get(), peer->subject.pid);
    auto made = std::make_shared<Connection>(context, std::move(socket), std::move(process),
                                             std::move(*peer), std::move(*charge));
    connections.emplace(made.get(), made);
    ++context.counters.connections;
    made->start();
}

void Server::State::reject(Fd socket, uid_t uid, const Fault& why) {
    context.log.debug("control: a connection of uid ", uid, " rejected: ", why.operation);
    send(socket.get(), make_error({}, why), {});
    context.close(std::move(socket), uid);
}

void Server::State::forget(Connection& connection) {
    const pid_t pid = connection.caller().subject.pid;
    --context.counters.connections;
    connections.erase(&connection);
    if (pid > 0 && count(&access::Subject::pid, pid) == 0) context.exchange.process_gone(pid);
}

void Server::State::end() {
    if (std::exchange(ended, true)) return;
    boost::system::error_code ignored;
    retry_timer.cancel();
    listener.close(ignored);
    ::unlink(context.config.path.c_str());
    while (!connections.empty()) {
        auto next = connections.begin()->second;
        next->close({});
    }
}

Server::Server(ServerConfig config, asio::io_context& loop, tree::Exchange& exchange,
               access::Ledger& ledger, Logger& log)
    : state_(std::make_shared<State>(std::move(config), loop, exchange, ledger, log)) {}

Server::~Server() {
    stop();
}

Result<void> Server::start() {
    auto listening = listen_at(state_->context.config.path, kBacklog);
    if (!listening) return listening.error();
    state_->listener.assign(listening->release());
    state_->await_connections();
    asio::post(state_->context.loop, [weak = std::weak_ptr(state_)] {
        if (auto state = weak.lock()) state->loop_runs = true;
    });
    return {};
}

void Server::stop() noexcept {
    asio::io_context& loop = state_->context.loop;
    const bool on_loop = loop.get_executor().running_in_this_thread();
    if (on_loop || !state_->loop_runs || loop.stopped()) return state_->end();
    try {
        auto done = std::make_shared<std::promise<void>>();
        auto over = done->get_future();
        asio::post(loop, [state = state_, done] {
            state->end();
            done->set_value();
        });
        // A loop that stops meanwhile drops the posted work.
        while (over.wait_for(kRetryDelay) != std::future_status::ready) {
            if (loop.stopped()) return state_->end();
        }
    } catch (const std::exception&) {
    }
}

const Counters& Server::counters() const noexcept {
    return state_->context.counters;
}

std::size_t Server::stuck() const {
    return state_->context.executor->stuck();
}

}  // namespace ipcfs::control
