// The control connection against a daemon of its own making: a SOCK_SEQPACKET listener where a mount
// would have its kern/ipc/control, with answers as each test wants them.
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sys/wait.h>
#include <thread>

#include <gtest/gtest.h>

#include <ipcfs/connection.hpp>

namespace ipcfs {
namespace {

using detail::Connection;
using detail::Fd;
using detail::Packet;

template <class T>
std::span<const std::byte> bytes_of(const T& value) {
    return std::as_bytes(std::span(&value, 1));
}

// Answers each packet by `answer`, on a thread a connection. Ends with the test.
class FakeDaemon {
public:
    using Answer = std::function<bool(int socket, Packet& request)>;

    explicit FakeDaemon(Answer answer) : answer_(std::move(answer)) {
        directory_ = std::filesystem::temp_directory_path() /
                     ("ipcfs-client-" + std::to_string(::getpid()) + "-" + std::to_string(made_++));
        std::filesystem::create_directories(directory_ / "kern/ipc");
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::snprintf(address.sun_path, sizeof address.sun_path, "%s/kern/ipc/control",
                      directory_.c_str());
        listener_ = Fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
        EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address),
                  0);
        EXPECT_EQ(::listen(listener_.get(), 8), 0);
        acceptor_ = std::thread([this] { accept(); });
    }
    ~FakeDaemon() {
        ::shutdown(listener_.get(), SHUT_RDWR);
        acceptor_.join();
        hang_up();
        for (std::thread& each : serving_) each.join();
        std::filesystem::remove_all(directory_);
    }

    std::string mount() const { return directory_; }
    int connections() const { return connections_; }
    void hang_up() {
        const std::scoped_lock hold(mutex_);
        for (const Fd& each : sockets_) ::shutdown(each.get(), SHUT_RDWR);
    }

    template <class T>
    static void reply(int socket, const Packet& request, const T& body, int error = 0,
                      std::initializer_list<std::string_view> texts = {},
                      std::span<const int> fds = {}) {
        ControlHeader header = request.header;
        header.op = static_cast<std::uint16_t>(header.op | 0x8000);
        header.error = error;
        const auto bytes = error == 0 ? bytes_of(body) : std::span<const std::byte>();
        EXPECT_TRUE(detail::send_packet(socket, header, bytes, texts, fds, "reply").has_value());
    }

private:
    void accept() {
        while (true) {
            Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
            if (!socket) return;
            ++connections_;
            const std::scoped_lock hold(mutex_);
            serving_.emplace_back([this, fd = socket.get()] { serve(fd); });
            sockets_.push_back(std::move(socket));
        }
    }
    void serve(int socket) {
        while (auto packet = detail::receive_packet(socket, "serve")) {
            if (packet->op() == ControlOp::kHello) {
                reply(socket, *packet, ControlWelcome{});
            } else if (!answer_(socket, *packet)) {
                ::shutdown(socket, SHUT_RDWR);
                return;
            }
        }
    }

    inline static int made_ = 0;
    Answer answer_;
    std::filesystem::path directory_;
    Fd listener_;
    std::atomic<int> connections_{0};
    std::mutex mutex_;
    std::vector<Fd> sockets_;
    std::vector<std::thread> serving_;
    std::thread acceptor_;
};

bool echo_id(int socket, Packet& request) {
    FakeDaemon::reply(socket, request, request.as<ControlId>());
    return true;
}

TEST(ClientConnection, IsOneAProcessAndMount) {
    FakeDaemon daemon(echo_id);
    auto first = Connection::get(daemon.mount());
    auto second = Connection::get(daemon.mount());
    ASSERT_TRUE(first && second);
    EXPECT_EQ(first->get(), second->get());
    auto reply = (*first)->call(ControlOp::kPoolMap, ControlId{42});
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->as<ControlId>().id, 42U);
    EXPECT_EQ(daemon.connections(), 1);
}

TEST(ClientConnection, GivesTheDaemonsErrorWithItsWords) {
    FakeDaemon daemon([](int socket, Packet& request) {
        FakeDaemon::reply(socket, request, ControlId{}, EDQUOT, {});
        return true;
    });
    auto reply = Connection::request(daemon.mount(), ControlOp::kSend, ControlSend{});
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, EDQUOT);
    EXPECT_STREQ(reply.error().operation, "send payload");
}

TEST(ClientConnection, PassesTextsAndDescriptorsBothWays) {
    FakeDaemon daemon([](int socket, Packet& request) {
        EXPECT_EQ(request.text(sizeof(ControlSend)), "jobs/aabc");
        EXPECT_EQ(request.fds.size(), 1U);
        const int back = request.fds.at(0).get();
        FakeDaemon::reply(socket, request, ControlSent{7, 8}, 0, {}, std::span(&back, 1));
        return true;
    });
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe2(pipe.data(), O_CLOEXEC), 0);
    const Fd out(pipe[0]);
    const Fd in(pipe[1]);
    const int given = in.get();
    auto reply = Connection::request(daemon.mount(), ControlOp::kSend, ControlSend{},
                                     {"jobs/a", "abc"}, std::span(&given, 1));
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->as<ControlSent>().payload_id, 7U);
    ASSERT_EQ(reply->fds.size(), 1U);
    ASSERT_EQ(::write(reply->fds[0].get(), "x", 1), 1);
    char got = 0;
    EXPECT_EQ(::read(out.get(), &got, 1), 1);
    EXPECT_EQ(got, 'x');
}

TEST(ClientConnection, SaysWhenTheDaemonWentWithoutAnAnswerAndConnectsAnew) {
    std::atomic<bool> die = true;
    FakeDaemon daemon([&](int socket, Packet& request) {
        if (die) return false;
        return echo_id(socket, request);
    });
    auto reply = Connection::request(daemon.mount(), ControlOp::kPoolMap, ControlId{1});
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code, ECONNRESET);  // it may have been done: not asked again
    die = false;
    EXPECT_TRUE(Connection::request(daemon.mount(), ControlOp::kPoolMap, ControlId{1}));
    daemon.hang_up();
    // Nothing was sent on the dead one, so this goes to a new one unseen.
    EXPECT_TRUE(Connection::request(daemon.mount(), ControlOp::kPoolMap, ControlId{1}));
    EXPECT_EQ(daemon.connections(), 3);
}

TEST(ClientConnection, RefusesWhatIsNoReply) {
    FakeDaemon daemon([](int socket, Packet& request) {
        if (request.as<ControlId>().id == 1) return ::send(socket, "nonsense", 8, 0) == 8;
        ControlHeader wrong = request.header;
        wrong.op = 0x8000 | static_cast<std::uint16_t>(ControlOp::kClaim);
        return detail::send_packet(socket, wrong, {}, {}, {}, "reply").has_value();
    });
    for (const std::uint64_t id : {std::uint64_t{1}, std::uint64_t{2}}) {
        auto reply = Connection::request(daemon.mount(), ControlOp::kPoolMap, ControlId{id});
        ASSERT_FALSE(reply);
        EXPECT_EQ(reply.error().code, EPROTO);
    }
}

TEST(ClientConnection, ServesThePushesOfWhatItOfferedFromTheFirstOn) {
    FakeDaemon daemon([](int socket, Packet& request) {
        if (request.op() != ControlOp::kLazyOffer) return echo_id(socket, request);
        FakeDaemon::reply(socket, request, ControlSent{9, 0});
        for (const auto op : {ControlOp::kLazyServe, ControlOp::kLazyServe, ControlOp::kLazyGone}) {
            ControlHeader header;
            header.op = static_cast<std::uint16_t>(op);
            ControlLazy lazy;
            lazy.payload_id = 9;
            EXPECT_TRUE(detail::send_packet(socket, header, bytes_of(lazy), {}, {}, "push"));
        }
        return true;
    });
    auto connection = Connection::get(daemon.mount());
    ASSERT_TRUE(connection);
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<ControlOp> seen;
    auto offered =
        (*connection)->call(ControlOp::kLazyOffer, ControlSend{}, {}, {}, [&](Packet&& packet) {
            const std::scoped_lock hold(mutex);
            EXPECT_EQ(packet.as<ControlLazy>().payload_id, 9U);
            seen.push_back(packet.op());
            changed.notify_all();
        });
    ASSERT_TRUE(offered);
    std::unique_lock hold(mutex);
    ASSERT_TRUE(changed.wait_for(hold, std::chrono::seconds(20), [&] { return seen.size() == 3; }));
    EXPECT_EQ(seen.back(), ControlOp::kLazyGone);
    hold.unlock();
    // With the service thread there, calls of several threads are answered all the same.
    std::vector<std::thread> callers;
    for (std::uint64_t i = 1; i <= 4; ++i) {
        callers.emplace_back([&, i] {
            for (std::uint64_t n = 0; n < 100; ++n) {
                auto reply = (*connection)->call(ControlOp::kPoolMap, ControlId{i * 1000 + n});
                ASSERT_TRUE(reply);
                EXPECT_EQ(reply->as<ControlId>().id, i * 1000 + n);
            }
        });
    }
    for (std::thread& each : callers) each.join();
}

TEST(ClientConnection, TellsTheServedThatTheDaemonIsGone) {
    FakeDaemon daemon([](int socket, Packet& request) {
        FakeDaemon::reply(socket, request, ControlSent{5, 0});
        return true;
    });
    auto connection = Connection::get(daemon.mount());
    ASSERT_TRUE(connection);
    std::atomic<bool> gone = false;
    ASSERT_TRUE(
        (*connection)->call(ControlOp::kLazyOffer, ControlSend{}, {}, {}, [&](Packet&& packet) {
            gone = packet.op() == ControlOp::kLazyGone;
            gone.notify_all();
        }));
    daemon.hang_up();
    gone.wait(false);
    (*connection)->unserve(5);
    EXPECT_TRUE((*connection)->broken());
}

TEST(ClientConnection, IsMadeAnewInAForkedChild) {
    FakeDaemon daemon(echo_id);
    auto parent = Connection::get(daemon.mount());
    ASSERT_TRUE(parent);
    const pid_t child = ::fork();
    if (child == 0) {
        auto inherited = (*parent)->call(ControlOp::kPoolMap, ControlId{1});
        auto mine = Connection::request(daemon.mount(), ControlOp::kPoolMap, ControlId{2});
        ::_exit(!inherited && mine && mine->as<ControlId>().id == 2 ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE((*parent)->call(ControlOp::kPoolMap, ControlId{3}));
    EXPECT_EQ(daemon.connections(), 2);
}

TEST(ClientConnection, ClosesItsSocketInAForkedChild) {
    FakeDaemon daemon(echo_id);
    auto parent = Connection::get(daemon.mount());
    ASSERT_TRUE(parent);
    const pid_t child = ::fork();
    if (child == 0) {
        // What is open here and a socket can only be the listener and the daemon's own ends.
        int sockets = 0;
        for (int fd = 0; fd < 1024; ++fd) {
            int type = 0;
            socklen_t size = sizeof type;
            sockaddr_un peer{};
            socklen_t length = sizeof peer;
            if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) continue;
            if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0) continue;
            // The client's end is the one whose peer has a name: the listener's.
            if (length > sizeof peer.sun_family) ++sockets;
        }
        ::_exit(sockets);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ipcfs
