// The control socket with a real exchange: requests, limits, and clients that mean no good.
#include <linux/userfaultfd.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <thread>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "control_world.hpp"
#include <ipcfs/connection.hpp>

namespace ipcfs::control {
namespace {

using test::memory_of;

using ControlServer = ControlWorld;

ControlWatch watch_of(std::string_view channel, std::string_view filter = {}) {
    ControlWatch watch;
    watch.path_length = static_cast<std::uint32_t>(channel.size());
    watch.filter_length = static_cast<std::uint32_t>(filter.size());
    return watch;
}

TEST_F(ControlServer, SaysWhereTheTreeIs) {
    serve();
    auto client = connect();
    ASSERT_TRUE(client);
    ControlClient::Reply reply;
    EXPECT_EQ(client.request(ControlOp::kHello, ControlHello{}, {}, {}, &reply), 0);
    const auto welcome = reply.as<ControlWelcome>();
    EXPECT_EQ(welcome.version, kControlVersion);
    EXPECT_EQ(welcome.max_packet, kMaxControlPacket);
    EXPECT_EQ(welcome.pid, static_cast<std::uint64_t>(::getpid()));
    EXPECT_EQ(reply.body.substr(sizeof welcome), "/somewhere");
}

TEST_F(ControlServer, TakesThePlaceOfADeadDaemonsSocketAndLeavesNone) {
    serve();
    server_->stop();
    EXPECT_FALSE(std::filesystem::exists(path()));
    ::close(::open(path().c_str(), O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(listen_at(path(), 1).error().code, EADDRINUSE);
    std::filesystem::remove(path());
    {
        auto dead = listen_at(path(), 1);
        ASSERT_TRUE(dead);
    }
    auto again = listen_at(path(), 1);
    ASSERT_TRUE(again) << again.error().message();
    struct stat st {};
    ASSERT_EQ(::stat(path().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0666u);
}

TEST_F(ControlServer, ListensAtAPathThatIsTooLongForAnAddress) {
    const std::string deep = directory_ + "/" + std::string(200, 'd');
    ASSERT_EQ(::mkdir(deep.c_str(), 0755), 0);
    EXPECT_TRUE(listen_at(deep + "/socket", 1));
}

TEST_F(ControlServer, QueuesASealedMemoryFile) {
    serve();
    auto client = connect();
    ControlClient::Reply reply;
    const Fd memory = memory_of("what a message says");
    ASSERT_EQ(client.send_memory("jobs", memory.get(), &reply), 0) << reply.body;
    EXPECT_EQ(reply.as<ControlSent>().size, 19u);
    auto message = take("jobs");
    ASSERT_TRUE(message);
    ASSERT_TRUE(message->payload);
    EXPECT_EQ(message->payload->id, reply.as<ControlSent>().payload_id);
    EXPECT_EQ(message->envelope.sender.pid, ::getpid());
}

TEST_F(ControlServer, AddsTheSealsThatAreMissing) {
    serve();
    auto client = connect();
    const Fd memory = memory_of("not sealed yet", 0);
    ASSERT_EQ(client.send_memory("jobs", memory.get()), 0);
    EXPECT_EQ(::fcntl(memory.get(), F_GET_SEALS) & test::kAllSeals, test::kAllSeals);
    EXPECT_TRUE(take("jobs"));
}

TEST_F(ControlServer, KeepsTheOrderOfSealedAndUnsealedMemory) {
    serve();
    auto client = connect();
    ControlSend what;
    what.path_length = 4;
    for (int i = 0; i < 50; ++i) {
        const Fd memory = memory_of(std::string(static_cast<std::size_t>(i) + 1, 'x'),
                                    i % 2 == 0 ? 0 : test::kAllSeals);
        ASSERT_EQ(client.send_bytes(
                      ControlClient::packet(ControlOp::kSend, what, {"jobs"}, 100u + unsigned(i)),
                      {memory.get()}),
                  0);
    }
    for (unsigned i = 0; i < 50; ++i) {
        auto reply = client.receive();
        ASSERT_TRUE(reply);
        EXPECT_EQ(reply->header.error, 0);
        EXPECT_EQ(reply->header.tag, 100 + i);
        EXPECT_EQ(take("jobs")->payload->size, i + 1);
    }
}

TEST_F(ControlServer, RefusesMemoryThatSomebodyCouldStillWriteTo) {
    serve();
    auto client = connect();
    const Fd memory = memory_of("almost", 0);
    void* writable = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    ASSERT_NE(writable, MAP_FAILED);
    EXPECT_EQ(client.send_memory("jobs", memory.get()), EPERM);
    ::munmap(writable, 4096);
    EXPECT_EQ(client.send_memory("jobs", memory.get()), 0);
    Fd unsealable(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_EQ(client.send_memory("jobs", unsealable.get()), EPERM);
    EXPECT_EQ(client.hello(), 0) << "the connection goes on";
}

TEST_F(ControlServer, RefusesWhatIsNotMemory) {
    serve();
    auto client = connect();
    int pipe_ends[2];
    ASSERT_EQ(::pipe2(pipe_ends, O_CLOEXEC), 0);
    const Fd reading(pipe_ends[0]), writing(pipe_ends[1]);
    const Fd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Fd counter(::eventfd(0, EFD_CLOEXEC));
    const Fd path_only(::open("/", O_PATH | O_CLOEXEC));
    for (int fd : {reading.get(), writing.get(), directory.get(), socket.get(), counter.get(),
                   path_only.get(), client.fd()}) {
        EXPECT_EQ(client.send_memory("jobs", fd), EPERM);
    }
    EXPECT_FALSE(take("jobs"));
}

TEST_F(ControlServer, RefusesTooManyDescriptorsAndKeepsNone) {
    serve();
    auto client = connect();
    ASSERT_EQ(client.hello(), 0);
    const std::size_t before = open_files();
    const Fd memory = memory_of("x");
    for (std::size_t count : {0u, 2u, 4u, 5u, 64u, 253u}) {
        ControlSend what;
        what.path_length = 4;
        std::vector<int> fds(count, memory.get());
        EXPECT_EQ(client.request(ControlOp::kSend, what, {"jobs"}, fds), EINVAL) << count;
    }
    EXPECT_TRUE(wait_until([&] { return open_files() == before + 1; }));
}

TEST_F(ControlServer, AnswersNonsenseWithEinvalAndGoesOn) {
    serve();
    auto client = connect();
    std::mt19937_64 random(channel::test_seed());
    SCOPED_TRACE(testing::Message() << "seed " << channel::test_seed());
    for (int round = 0; round < 2000; ++round) {
        std::string bytes = ControlClient::packet(static_cast<ControlOp>(1 + random() % 14),
                                                  ControlSend{}, {"jobs"}, 5);
        bytes.resize(1 + random() % bytes.size());
        for (std::uint64_t spoil = random() % 4; spoil > 0; --spoil)
            bytes[random() % bytes.size()] = static_cast<char>(random());
        ControlHeader header;
        std::memcpy(&header, bytes.data(), std::min(bytes.size(), sizeof header));
        if (header.op == static_cast<std::uint16_t>(ControlOp::kLazyReport)) continue;
        ASSERT_EQ(client.send_bytes(bytes), 0);
        auto reply = client.receive();
        ASSERT_TRUE(reply) << "round " << round;
        if (bytes.size() >= sizeof header) {
            EXPECT_EQ(reply->header.tag, header.tag);
        }
    }
    ASSERT_EQ(client.send_bytes(std::string(kMaxControlPacket + 1, 'x')), 0);
    EXPECT_EQ(client.receive()->header.error, EMSGSIZE);
    EXPECT_EQ(client.hello(), 0);
}

TEST_F(ControlServer, CutsAClientThatDoesNotReadItsReplies) {
    serve();
    auto client = connect(), other = connect();
    int error = 0;
    for (int i = 0; i < 100'000 && error == 0; ++i) {
        error = client.send_bytes(ControlClient::packet(ControlOp::kHello, ControlHello{}));
    }
    EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << error;
    EXPECT_TRUE(wait_until([&] { return log_.has("does not read its replies"); }));
    EXPECT_EQ(other.hello(), 0);
    EXPECT_EQ(server_->counters().aborted, 1u);
}

TEST_F(ControlServer, TurnsAwayWhoeverIsTooMuch) {
    ServerConfig config;
    config.max_connections = 3;
    serve(config);
    std::vector<ControlClient> clients;
    for (int i = 0; i < 3; ++i) {
        clients.push_back(connect());
        EXPECT_EQ(clients.back().hello(), 0);
    }
    auto fourth = connect();
    ASSERT_TRUE(fourth);
    auto word = fourth.receive();
    ASSERT_TRUE(word);
    EXPECT_EQ(word->header.error, EMFILE);
    EXPECT_FALSE(fourth.receive());
    EXPECT_TRUE(fourth.ended());
    clients.pop_back();
    EXPECT_TRUE(wait_until([&] { return connect().hello() == 0; }));
}

TEST_F(ControlServer, TellsAClientLibraryWhyItIsTurnedAway) {
    ServerConfig config;
    config.max_connections = 1;
    serve(config);
    auto first = connect();
    ASSERT_EQ(first.hello(), 0);
    for (int round = 0; round < 100; ++round) {
        auto second = connect();
        detail::Connection turned_away("/somewhere", detail::Fd(second.release().release()));
        auto greeted = turned_away.greet();
        ASSERT_FALSE(greeted);
        ASSERT_EQ(greeted.error().code, EMFILE) << greeted.error().message();
        ASSERT_TRUE(turned_away.broken());
    }
}

TEST_F(ControlServer, ChargesAnOpenFileForAConnection) {
    ledger_.reload(
        [](uid_t) {
            access::Limits limits = access::kNoLimits;
            limits[static_cast<std::size_t>(access::Resource::kOpenFiles)] = 2;
            return limits;
        },
        access::kUnlimited);
    serve();
    {
        auto one = connect(), two = connect();
        EXPECT_EQ(one.hello(), 0);
        EXPECT_EQ(two.hello(), 0);
        EXPECT_EQ(charged(access::Resource::kOpenFiles), 2u);
        auto three = connect();
        auto word = three.receive();
        ASSERT_TRUE(word);
        EXPECT_EQ(word->header.error, EDQUOT);
    }
    EXPECT_TRUE(wait_until([&] { return charged(access::Resource::kOpenFiles) == 0; }));
}

TEST_F(ControlServer, CountsEventsUntilTheWatchEnds) {
    serve();
    auto client = connect();
    const Fd counter(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ControlClient::Reply reply;
    ASSERT_EQ(client.request(ControlOp::kEventFd, watch_of("jobs", "events=arrival"),
                             {"jobs", "events=arrival"}, {counter.get()}, &reply),
              0)
        << reply.body;
    const ControlId watch = reply.as<ControlId>();
    eventfd_t count = 0;
    push("jobs", "one");
    push("jobs", "two");
    EXPECT_EQ(::eventfd_read(counter.get(), &count), 0);
    EXPECT_EQ(count, 2u);
    EXPECT_EQ(client.request(ControlOp::kUnwatch, watch), 0);
    EXPECT_EQ(client.request(ControlOp::kUnwatch, watch), ENOENT);
    push("jobs", "three");
    EXPECT_NE(::eventfd_read(counter.get(), &count), 0);
    const Fd not_a_counter = memory_of("x");
    EXPECT_EQ(
        client.request(ControlOp::kEventFd, watch_of("jobs"), {"jobs"}, {not_a_counter.get()}),
        EINVAL);
}

TEST_F(ControlServer, EndsWatchesWithTheirConnection) {
    serve();
    const Fd counter(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    {
        auto client = connect();
        ASSERT_EQ(client.request(ControlOp::kEventFd, watch_of("jobs"), {"jobs"}, {counter.get()}),
                  0);
    }
    ASSERT_TRUE(wait_until([&] { return server_->counters().connections == 0; }));
    push("jobs", "one");
    eventfd_t count = 0;
    EXPECT_NE(::eventfd_read(counter.get(), &count), 0);
}

// The counter is shared: its owner can make it full, and block who adds to it.
TEST_F(ControlServer, DoesNotWaitForAFullCounter) {
    serve();
    auto client = connect();
    const Fd counter(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    ASSERT_EQ(client.request(ControlOp::kEventFd, watch_of("jobs"), {"jobs"}, {counter.get()}), 0);
    ASSERT_EQ(::eventfd_write(counter.get(), UINT64_MAX - 1), 0);
    ASSERT_EQ(::fcntl(counter.get(), F_SETFL, 0), 0);
    std::thread writer([&] { push("jobs", "one"); });
    EXPECT_TRUE(wait_until([&] { return channel("jobs")->snapshot().depth == 1; }));
    ::fcntl(counter.get(), F_SETFL, O_NONBLOCK);
    eventfd_t count = 0;
    const bool drained = ::eventfd_read(counter.get(), &count) == 0;
    writer.join();
    EXPECT_TRUE(drained);
    EXPECT_TRUE(count == UINT64_MAX - 1 || count == UINT64_MAX) << count;
}

ControlPoolOpen pool_of(std::uint32_t chunks) {
    ControlPoolOpen open;
    open.chunk_size = open.stride = 4096;
    open.chunk_count = chunks;
    open.path_length = 4;
    return open;
}
constexpr int kPoolSeals = F_SEAL_SHRINK | F_SEAL_GROW | 0x0010;

TEST_F(ControlServer, OpensAPoolAndMapsItReadOnly) {
    ASSERT_TRUE(channel("jobs")->control("payloads pooled\n"));
    serve();
    auto sender = connect(), receiver = connect();
    const Fd memory = memory_of(std::string(8 * 4096, 'p'), kPoolSeals);
    ControlClient::Reply opened, mapped;
    ASSERT_EQ(sender.request(ControlOp::kPoolOpen, pool_of(8), {"jobs"}, {memory.get()}, &opened),
              0)
        << opened.body;
    ASSERT_EQ(opened.fds.size(), 1u);
    const ControlId id{opened.as<ControlPool>().id};
    ASSERT_EQ(receiver.request(ControlOp::kPoolMap, id, {}, {}, &mapped), 0) << mapped.body;
    ASSERT_EQ(mapped.fds.size(), 2u);
    EXPECT_EQ(mapped.as<ControlPool>().chunk_count, 8u);
    EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped.fds[0].get(), 0),
              MAP_FAILED);
    EXPECT_EQ(receiver.request(ControlOp::kPoolMap, ControlId{id.id + 1}), ENOENT);
    EXPECT_EQ(sender.request(ControlOp::kPoolClose, id), 0);
    EXPECT_EQ(receiver.request(ControlOp::kPoolMap, id), ENOENT);
}

TEST_F(ControlServer, ClosesPoolsWithTheirConnection) {
    ASSERT_TRUE(channel("jobs")->control("payloads pooled\n"));
    serve();
    auto receiver = connect();
    const Fd memory = memory_of(std::string(8 * 4096, 'p'), kPoolSeals);
    ControlClient::Reply opened;
    {
        auto sender = connect();
        ASSERT_EQ(
            sender.request(ControlOp::kPoolOpen, pool_of(8), {"jobs"}, {memory.get()}, &opened), 0);
        EXPECT_GT(charged(access::Resource::kPayloadBytes), 0u);
    }
    const ControlId id{opened.as<ControlPool>().id};
    EXPECT_TRUE(wait_until([&] { return receiver.request(ControlOp::kPoolMap, id) == ENOENT; }));
    EXPECT_TRUE(wait_until([&] { return charged(access::Resource::kPayloadBytes) == 0; }));
}

struct Socketpair {
    Fd mine, theirs;
    Socketpair() {
        int ends[2] = {-1, -1};
        static_cast<void>(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
        mine.reset(ends[0]);
        theirs.reset(ends[1]);
    }
};

class ControlLazyOffer : public ControlWorld {
protected:
    // Its payload's id.
    std::uint64_t offer(ControlClient& producer, std::uint64_t size) {
        ControlSend what;
        what.path_length = 4;
        what.size = size;
        ControlClient::Reply reply;
        EXPECT_EQ(producer.request(ControlOp::kLazyOffer, what, {"jobs"}, {}, &reply), 0)
            << reply.body;
        return reply.as<ControlSent>().payload_id;
    }
    static ControlLazy whole(std::uint64_t payload, std::uint64_t length) {
        ControlLazy wanted;
        wanted.payload_id = payload;
        wanted.address = 4096;
        wanted.length = length;
        wanted.mode = LazyMode::kWhole;
        return wanted;
    }
};

TEST_F(ControlLazyOffer, PassesAReceiversDescriptorsToItsProducer) {
    serve();
    auto producer = connect(), receiver = connect();
    const auto payload = offer(producer, 8192);
    Socketpair link;
    const Fd memory = memory_of(std::string(8192, '.'), 0);
    ASSERT_EQ(receiver.request(ControlOp::kLazyAttach, whole(payload, 8192), {},
                               {memory.get(), link.theirs.get()}),
              0);
    link.theirs.reset();
    auto serve = producer.receive();
    ASSERT_TRUE(serve);
    EXPECT_EQ(serve->header.op, static_cast<std::uint16_t>(ControlOp::kLazyServe));
    EXPECT_EQ(serve->header.tag, 0u);
    const auto wanted = serve->as<ControlLazy>();
    EXPECT_EQ(wanted.payload_id, payload);
    EXPECT_EQ(wanted.pid, static_cast<std::uint32_t>(::getpid()));
    ASSERT_EQ(serve->fds.size(), 2u);
    ASSERT_EQ(::pwrite(serve->fds[0].get(), "filled", 6, 0), 6);
    ASSERT_EQ(::write(serve->fds[1].get(), "!", 1), 1);
    char done = 0;
    ASSERT_EQ(::read(link.mine.get(), &done, 1), 1);
    char text[6];
    ASSERT_EQ(::pread(memory.get(), text, 6, 0), 6);
    EXPECT_EQ(std::string_view(text, 6), "filled");
    serve.reset();
    EXPECT_EQ(::read(link.mine.get(), &done, 1), 0) << "somebody still holds the link";
}

TEST_F(ControlLazyOffer, TellsItsProducerWhenNobodyCanAskAnyMore) {
    serve();
    auto producer = connect();
    std::vector<std::uint64_t> offered;
    for (int i = 0; i < 700; ++i) offered.push_back(offer(producer, 4096));
    ASSERT_TRUE(channel("jobs")->control("purge\n"));
    for (const std::uint64_t payload : offered) {
        auto gone = producer.receive();
        ASSERT_TRUE(gone);
        EXPECT_EQ(gone->header.op, static_cast<std::uint16_t>(ControlOp::kLazyGone));
        EXPECT_EQ(gone->as<ControlId>().id, payload);
    }
}

TEST_F(ControlLazyOffer, IsResetWhenTheProducerIsGone) {
    serve();
    auto receiver = connect();
    Socketpair link;
    const Fd memory = memory_of(std::string(4096, '.'), 0);
    std::uint64_t payload = 0;
    {
        auto producer = connect();
        payload = offer(producer, 4096);
    }
    EXPECT_TRUE(wait_until([&] {
        return receiver.request(ControlOp::kLazyAttach, whole(payload, 4096), {},
                                {memory.get(), link.theirs.get()}) == ECONNRESET;
    }));
}

TEST_F(ControlLazyOffer, RefusesDescriptorsOfAnotherKind) {
    serve();
    auto producer = connect(), receiver = connect();
    const auto payload = offer(producer, 4096);
    Socketpair link;
    const Fd memory = memory_of(std::string(4096, '.'), 0);
    const Fd tcp(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto attach = [&](LazyMode mode, int first, int second) {
        ControlLazy wanted = whole(payload, 4096);
        wanted.mode = mode;
        return receiver.request(ControlOp::kLazyAttach, wanted, {}, {first, second});
    };
    EXPECT_EQ(attach(LazyMode::kWhole, link.theirs.get(), link.theirs.get()), EINVAL);
    EXPECT_EQ(attach(LazyMode::kFaults, memory.get(), link.theirs.get()), EINVAL);
    EXPECT_EQ(attach(LazyMode::kWhole, memory.get(), memory.get()), EINVAL);
    EXPECT_EQ(attach(LazyMode::kWhole, memory.get(), tcp.get()), EINVAL);
    EXPECT_EQ(attach(LazyMode::kWhole, memory.get(), link.theirs.get()), 0);
}

TEST_F(ControlLazyOffer, HoldsNobodyUpWhenItsProducerDoesNotRead) {
    serve();
    auto producer = connect(), receiver = connect();
    const auto payload = offer(producer, 4096);
    const Fd memory = memory_of(std::string(4096, '.'), 0);
    const std::size_t before = open_files();
    int accepted = 0;
    Socketpair link;
    for (int i = 0; i < 1000; ++i) {
        const int result = receiver.request(ControlOp::kLazyAttach, whole(payload, 4096), {},
                                            {memory.get(), link.theirs.get()});
        if (result == 0) {
            ++accepted;
        } else {
            ASSERT_EQ(result, ECONNRESET);
        }
    }
    EXPECT_GT(accepted, 0);
    EXPECT_LT(accepted, 1000);
    // Those refused are closed by a thread of their own.
    EXPECT_TRUE(wait_until([&] { return open_files() < before + 2 * 64 + 16; }))
        << "what waits for it is bounded";
    for (int i = 0; i < accepted; ++i) ASSERT_TRUE(producer.receive()) << i;
    EXPECT_EQ(producer.hello(), 0) << "it was not its fault";
}

// ---- traps --------------------------------------------------------------------------------------

// A TCP socket whose close waits: it lingers with bytes that its peer does not take.
struct Lingering {
    Fd listener{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}, client, peer;

    Lingering() {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof address;
        auto* any = reinterpret_cast<sockaddr*>(&address);
        if (::bind(listener.get(), any, length) != 0 || ::listen(listener.get(), 1) != 0 ||
            ::getsockname(listener.get(), any, &length) != 0)
            return;
        client.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        if (::connect(client.get(), any, length) != 0) return;
        peer.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
        const linger forever{1, 3600};
        ::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &forever, sizeof forever);
        const std::string much(1 << 20, 'x');
        while (::send(client.get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
        }
    }
    void let_go() { peer.reset(); }
};

std::string bait() {
    ControlSend what;
    what.path_length = 4;
    return ControlClient::packet(ControlOp::kSend, what, {"jobs"});
}

// Leaves the trap to the server: whoever closes it last is the one who waits.
void send_trap(boost::asio::io_context& loop, ControlClient& from, Lingering& trap) {
    const Pause pause(loop);
    EXPECT_EQ(from.send_bytes(bait(), {trap.client.get()}), 0);
    trap.client.reset();
}

TEST_F(ControlServer, GoesOnWhenADescriptorTakesForEverToClose) {
    serve();
    Lingering trap;
    ASSERT_TRUE(trap.peer);
    auto hostile = connect(), other = connect();
    send_trap(loop_, hostile, trap);
    EXPECT_EQ(hostile.receive()->header.error, EPERM);
    EXPECT_EQ(other.hello(), 0);
    EXPECT_TRUE(wait_until([&] { return server_->stuck() == 1; }));
    EXPECT_EQ(hostile.hello(), 0) << "one is not held against it";
    trap.let_go();
    EXPECT_TRUE(wait_until([&] { return server_->stuck() == 0; }));
}

TEST_F(ControlServer, CutsAUserWhoseDescriptorsTakeForEverToClose) {
    serve();
    Lingering traps[3];
    auto hostile = connect();
    send_trap(loop_, hostile, traps[0]);
    send_trap(loop_, hostile, traps[1]);
    ASSERT_TRUE(wait_until([&] { return server_->stuck() == kMaxStuck; }));
    send_trap(loop_, hostile, traps[2]);
    EXPECT_TRUE(wait_until([&] { return log_.has("take too long to close"); }));
    auto again = connect();
    EXPECT_EQ(again.receive()->header.error, EBUSY);
    for (Lingering& trap : traps) trap.let_go();
    EXPECT_TRUE(wait_until([&] { return connect().hello() == 0; }));
}

// What is unread when a connection ends is closed with it.
TEST_F(ControlServer, GoesOnWhenATrapIsLeftInAClosedConnection) {
    serve();
    Lingering trap;
    auto other = connect();
    ASSERT_EQ(other.hello(), 0);
    {
        // The reply to the first packet finds nobody, and the second is never read.
        const Pause pause(loop_);
        auto hostile = connect();
        ASSERT_EQ(hostile.send_bytes(ControlClient::packet(ControlOp::kHello, ControlHello{})), 0);
        ASSERT_EQ(hostile.send_bytes("x", {trap.client.get()}), 0);
        trap.client.reset();
        hostile.close();
    }
    EXPECT_TRUE(wait_until([&] { return server_->stuck() == 1; }));
    EXPECT_EQ(other.hello(), 0);
    EXPECT_EQ(server_->counters().foreign, 0u);
    trap.let_go();
    EXPECT_TRUE(wait_until([&] { return server_->stuck() == 0; }));
}

// A lease makes everybody else's open(2) of that file wait for 45 seconds.
TEST_F(ControlServer, DoesNotWaitForALease) {
    ::signal(SIGIO, SIG_IGN);  // says that somebody would like to open it
    serve();
    auto client = connect(), other = connect();
    Fd memory = memory_of("leased");
    // Whoever has the only open file of it gets one.
    auto only = payload::reopen_read_only(memory.get());
    ASSERT_TRUE(only);
    memory = std::move(*only);
    ASSERT_EQ(::fcntl(memory.get(), F_SETLEASE, F_WRLCK), 0) << std::strerror(errno);
    ControlSend what;
    what.path_length = 4;
    ASSERT_EQ(
        client.send_bytes(ControlClient::packet(ControlOp::kSend, what, {"jobs"}), {memory.get()}),
        0);
    ASSERT_EQ(other.send_bytes(ControlClient::packet(ControlOp::kHello, ControlHello{})), 0);
    auto first = client.receive(10'000);
    ASSERT_TRUE(first);
    EXPECT_NE(first->header.error, 0);
    EXPECT_TRUE(other.receive(10'000));
}

// Whoever writes to a memory file holds its lock, also while the page that he writes from is not
// there: here for as long as a userfaultfd's owner likes.
TEST_F(ControlServer, GoesOnWhenAFileTakesForEverToSeal) {
    serve();
    Fd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    if (!faults) GTEST_SKIP() << "no userfaultfd";
    uffdio_api api{UFFD_API, 0, 0};
    if (::ioctl(faults.get(), UFFDIO_API, &api) != 0) GTEST_SKIP() << "no userfaultfd";
    void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uffdio_register range{
        {reinterpret_cast<std::uint64_t>(page), 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
    ASSERT_EQ(::ioctl(faults.get(), UFFDIO_REGISTER, &range), 0);
    const Fd memory = memory_of("locked", 0);
    std::thread writer([&] { static_cast<void>(::pwrite(memory.get(), page, 4096, 0)); });
    pollfd faulted{faults.get(), POLLIN, 0};
    ASSERT_EQ(::poll(&faulted, 1, 20'000), 1);

    auto hostile = connect(), other = connect();
    ControlSend what;
    what.path_length = 4;
    ASSERT_EQ(
        hostile.send_bytes(ControlClient::packet(ControlOp::kSend, what, {"jobs"}), {memory.get()}),
        0);
    EXPECT_TRUE(wait_until([&] { return server_->stuck() == 1; }));
    EXPECT_EQ(other.hello(), 0);
    const Fd unsealed = memory_of("another's", 0);
    EXPECT_EQ(other.send_memory("jobs", unsealed.get()), 0);

    uffdio_zeropage zero{{reinterpret_cast<std::uint64_t>(page), 4096}, 0, 0};
    ASSERT_EQ(::ioctl(faults.get(), UFFDIO_ZEROPAGE, &zero), 0);
    writer.join();
    auto reply = hostile.receive();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->header.error, 0);
    ::munmap(page, 4096);
}

TEST_F(ControlServer, StopsWithClientsConnectedWhetherItsLoopRunsOrNot) {
    serve();
    auto client = connect();
    EXPECT_EQ(client.hello(), 0);
    server_->stop();
    EXPECT_FALSE(client.receive());
    EXPECT_TRUE(client.ended());
    Server never(ServerConfig{directory_ + "/other", "/", 10, 10}, loop_, exchange_, ledger_, log_);
    loop_.stop();
    thread_.join();
    ASSERT_TRUE(never.start());
    never.stop();
    EXPECT_FALSE(std::filesystem::exists(directory_ + "/other"));
}

}  // namespace
}  // namespace ipcfs::control
