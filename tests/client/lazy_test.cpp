// Lazy payloads without a daemon: what it would pass on, the receiver's descriptors, goes straight
// to the producer, in this process or in a forked one.
#include <atomic>
#include <chrono>
#include <csetjmp>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <functional>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <memory>
#include <optional>
#include <random>
#include <sched.h>
#include <span>
#include <string>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include <ipcfs/connection.hpp>
#include <ipcfs/lazy_range.hpp>
#include <ipcfs/lazy_server.hpp>

namespace ipcfs {
namespace {

using namespace std::chrono_literals;
constexpr std::chrono::milliseconds kPatience = 20s;

// Every byte depends on its place and on its page's.
std::byte expected(std::size_t at) {
    return static_cast<std::byte>(at * 31 + (at >> 12) * 7 + (at >> 20));
}

std::vector<std::byte> content(std::size_t size) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = expected(i);
    return bytes;
}

// The first place in bytes[from, from + length) that is not as expected.
std::optional<std::size_t> wrong(std::span<const std::byte> bytes, std::size_t from,
                                 std::size_t length) {
    for (std::size_t i = from; i < from + length; ++i)
        if (bytes[i] != expected(i)) return i;
    return std::nullopt;
}

// Passes the receiver's descriptors to a server of this process.
auto to(detail::LazyServer& server) {
    return [&server](const ControlLazy& request, std::span<const int> fds) -> Expected<void> {
        server.attach(request, detail::Fd(::fcntl(fds[0], F_DUPFD_CLOEXEC, 0)),
                      detail::Fd(::fcntl(fds[1], F_DUPFD_CLOEXEC, 0)));
        return {};
    };
}

// A forked process; killed and reaped with its owner.
class Process {
public:
    explicit Process(const std::function<int()>& body) : pid_(::fork()) {
        if (pid_ != 0) return;
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::_exit(body());
    }
    Process(const Process&) = delete;
    Process& operator=(const Process&) = delete;
    ~Process() {
        if (code_) return;
        ::kill(pid_, SIGKILL);
        wait();
    }

    void kill() const { ::kill(pid_, SIGKILL); }
    // Its exit code, or 1000 + the signal that ended it; -1 when it is still there.
    int wait() {
        const auto end = std::chrono::steady_clock::now() + kPatience;
        int status = 0;
        while (!code_ && std::chrono::steady_clock::now() < end) {
            if (::waitpid(pid_, &status, WNOHANG) == pid_)
                code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
            std::this_thread::yield();
        }
        return code_.value_or(-1);
    }

private:
    pid_t pid_;
    std::optional<int> code_;
};

// Both ends of what stands for the daemon: packets of kLazyServe.
struct Wire {
    Wire() {
        int ends[2] = {-1, -1};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        receiver.reset(ends[0]);
        producer.reset(ends[1]);
    }
    auto attach() {
        return [this](const ControlLazy& request, std::span<const int> fds) -> Expected<void> {
            ControlHeader header;
            header.op = static_cast<std::uint16_t>(ControlOp::kLazyServe);
            return detail::send_packet(receiver.get(), header,
                                       std::as_bytes(std::span(&request, 1)), {}, fds, "attach");
        };
    }

    detail::Fd receiver;
    detail::Fd producer;
};

// What a producer's process does: serves all that attach, until the wire ends.
int produce(Wire& wire, std::size_t size) {
    wire.receiver.reset();
    const auto bytes = content(size);
    detail::LazyServer server(bytes, {}, {});
    while (true) {
        auto packet = detail::receive_packet(wire.producer.get(), "serve");
        if (!packet) return 0;
        server.attach(packet->as<ControlLazy>(), std::move(packet->fds[0]),
                      std::move(packet->fds[1]));
    }
}

// A producer that takes a range and then does nothing; says on `touched` that somebody waits.
int stall(Wire& wire, int touched) {
    wire.receiver.reset();
    auto packet = detail::receive_packet(wire.producer.get(), "serve");
    if (!packet) return 1;
    const detail::LazyPacket serving;
    ::send(packet->fds[1].get(), &serving, sizeof serving, MSG_NOSIGNAL);
    pollfd either[2] = {{packet->fds[0].get(), POLLIN, 0}, {packet->fds[1].get(), POLLIN, 0}};
    ::poll(either, 2, -1);
    uffd_msg message;
    // The touch is taken, so that nobody else can see it.
    if (either[0].revents != 0 && ::read(packet->fds[0].get(), &message, sizeof message) < 0)
        return 2;
    if (::write(touched, "t", 1) != 1) return 3;
    ::pause();
    return 0;
}

bool await_byte(int fd) {
    pollfd one{fd, POLLIN, 0};
    char byte = 0;
    return ::poll(&one, 1, static_cast<int>(kPatience.count())) == 1 && ::read(fd, &byte, 1) == 1;
}

bool wait_until(const std::function<bool()>& condition) {
    const auto end = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::yield();
    }
    return true;
}

// In a child that is to end so: no core file, and no handler of a sanitizer's.
void die_by_the_signal() {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(SIGBUS, SIG_DFL);
    ::signal(SIGSEGV, SIG_DFL);
}

int as_nobody() {
    if (::geteuid() != 0) return 0;
    return ::setgroups(0, nullptr) == 0 && ::setresgid(65534, 65534, 65534) == 0 &&
                   ::setresuid(65534, 65534, 65534) == 0
               ? 0
               : 126;
}

constexpr std::size_t kOdd = (std::size_t{24} << 20) + 1234;  // ends within a page

#define SKIP_WITHOUT_USERFAULTFD() \
    if (auto opened = detail::uffd::open(); !opened) GTEST_SKIP() << opened.error().message()

// The sanitizer's own limit: no threads in the child of a process that has some.
#if defined(__SANITIZE_THREAD__)
#define SKIP_WHERE_CHILDREN_HAVE_NO_THREADS() GTEST_SKIP() << "forks"
#else
#define SKIP_WHERE_CHILDREN_HAVE_NO_THREADS() static_cast<void>(0)
#endif

LazyRange map_from(detail::LazyServer& server, std::size_t size, LazyMapOptions options = {}) {
    auto range = LazyRange::map(1, size, true, options, to(server));
    EXPECT_TRUE(range) << range.error().message();
    return range.value_or(LazyRange());
}

TEST(LazyRange, ShowsTheProducersBytesWhereverItIsTouched) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    ASSERT_EQ(range.size(), kOdd);
    EXPECT_FALSE(range.fell_back()) << range.why();
    std::mt19937_64 random(7);
    for (int i = 0; i < 500; ++i) {
        const std::size_t at = random() % kOdd;
        ASSERT_EQ(range.bytes()[at], expected(at)) << at;
    }
    // Far from all of it came: 500 touches of blocks of 16 KiB at most.
    EXPECT_LT(range.resident(), kOdd / 2);
    EXPECT_EQ(wrong(range.bytes(), 0, kOdd), std::nullopt);
    EXPECT_EQ(range.resident(), kOdd);
}

TEST(LazyRange, ReadsAheadOfOneWhoReadsOn) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    EXPECT_EQ(wrong(range.bytes(), 0, kOdd), std::nullopt);
    EXPECT_TRUE(wait_until([&] { return server.totals().pages * 4096 >= kOdd; }));
    EXPECT_LT(server.totals().faults, kOdd / 4096 / 8);
}

TEST(LazyRange, IsFilledBackwardsToo) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    for (std::size_t end = kOdd; end != 0;) {
        const std::size_t from = (end - 1) & ~std::size_t{4095};
        ASSERT_EQ(wrong(range.bytes(), from, end - from), std::nullopt);
        end = from;
    }
}

TEST(LazyRange, EndsWithZeroesToTheEndOfThePage) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(4096 + 10);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, bytes.size());
    const std::byte* data = range.bytes().data();
    EXPECT_EQ(data[4096 + 9], expected(4096 + 9));
    for (std::size_t i = 4096 + 10; i < 8192; ++i) ASSERT_EQ(data[i], std::byte{0});
}

TEST(LazyRange, ServesManyThreadsThatTouchTheSamePages) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    std::atomic<int> bad{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; ++t)
        threads.emplace_back([&, t] {
            std::mt19937_64 random(t / 2);  // two threads each on the same way
            for (int i = 0; i < 2000; ++i) {
                const std::size_t at = random() % kOdd;
                if (range.bytes()[at] != expected(at)) ++bad;
            }
        });
    for (auto& each : threads) each.join();
    EXPECT_EQ(bad, 0);
}

TEST(LazyRange, IsWritableAsACopyAndElseNot) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(1 << 20);
    detail::LazyServer server(bytes, {}, {});
    LazyMapOptions options;
    options.access = Access::copy_on_write;
    const LazyRange copy = map_from(server, bytes.size(), options);
    ASSERT_EQ(copy.writable_bytes().size(), bytes.size());
    copy.writable_bytes()[5000] = std::byte{1};
    EXPECT_EQ(copy.bytes()[4999], expected(4999));
    EXPECT_EQ(copy.bytes()[5001], expected(5001));
    EXPECT_EQ(bytes[5000], expected(5000));
    const LazyRange view = map_from(server, bytes.size());
    EXPECT_TRUE(view.writable_bytes().empty());
    ASSERT_TRUE(view.fetch(0, 10));
    const detail::Fd zeroes(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(::read(zeroes.get(), const_cast<std::byte*>(view.bytes().data()), 1), -1);
    EXPECT_EQ(errno, EFAULT);
    options.access = Access::read_write;
    EXPECT_EQ(LazyRange::map(1, 4096, true, options, to(server)).error().code, EINVAL);
}

TEST(LazyRange, FetchesWithoutTouching) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    const auto some = range.fetch(1'000'000, 3'000'000);
    ASSERT_TRUE(some) << some.error().message();
    EXPECT_EQ(some->data(), range.bytes().data() + 1'000'000);
    EXPECT_EQ(some->size(), 3'000'000U);
    EXPECT_GE(range.resident(), 3'000'000U);
    EXPECT_LT(range.resident(), 3'100'000U);
    EXPECT_EQ(wrong(range.bytes(), 1'000'000, 3'000'000), std::nullopt);
    EXPECT_TRUE(range.fetch(0, kOdd));
    EXPECT_EQ(range.resident(), kOdd);
    EXPECT_TRUE(range.fetch(kOdd, 0));
    EXPECT_EQ(range.fetch(kOdd, 1).error().code, EINVAL);
    EXPECT_EQ(range.fetch(1, SIZE_MAX).error().code, EINVAL);
}

TEST(LazyRange, FetchesForManyThreadsAtOnce) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    std::atomic<int> bad{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 8; ++t)
        threads.emplace_back([&, t] {
            std::mt19937_64 random(t);
            for (int i = 0; i < 200; ++i) {
                const std::size_t length = random() % 20'000;
                const std::size_t at = random() % (kOdd - length);
                if (!range.fetch(at, length) || wrong(range.bytes(), at, length)) ++bad;
            }
        });
    for (auto& each : threads) each.join();
    EXPECT_EQ(bad, 0);
}

TEST(LazyRange, SurvivesMemoryThatTheReceiverThrowsAway) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    const LazyRange range = map_from(server, kOdd);
    EXPECT_EQ(wrong(range.bytes(), 0, kOdd), std::nullopt);
    auto* data = const_cast<std::byte*>(range.bytes().data());
    ASSERT_EQ(::madvise(data + (1 << 20), 8 << 20, MADV_DONTNEED), 0);
    // The range becomes several mappings: no copy may go across their borders.
    ASSERT_EQ(::mprotect(data + (2 << 20), 4096, PROT_NONE), 0);
    EXPECT_EQ(wrong(range.bytes(), 1 << 20, 1 << 20), std::nullopt);
    EXPECT_EQ(wrong(range.bytes(), (2 << 20) + 4096, 7 << 20), std::nullopt);
}

TEST(LazyRange, ComesFromAnotherProcessToSeveral) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    Wire wire;
    Process producer([&] { return produce(wire, kOdd); });
    const auto receive = [&](unsigned seed) {
        const auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        if (!range) return 1;
        std::mt19937_64 random(seed);
        for (int i = 0; i < 3000; ++i) {
            const std::size_t at = random() % kOdd;
            if (range->bytes()[at] != expected(at)) return 2;
        }
        if (!range->fetch(0, kOdd)) return 3;
        return wrong(range->bytes(), 0, kOdd) ? 4 : 0;
    };
    Process one([&] { return receive(1); });
    Process two([&] { return receive(2); });
    Process three([&] { return receive(3); });
    EXPECT_EQ(one.wait(), 0);
    EXPECT_EQ(two.wait(), 0);
    EXPECT_EQ(three.wait(), 0);
}

// Runs `receive` against a producer that takes its range and stalls; kills that once a touch or a
// request waits there. The outcome of `receive`.
int with_producer_killed(const std::function<int(LazyRange&)>& receive) {
    Wire wire;
    int touched[2] = {-1, -1};
    if (::pipe2(touched, O_CLOEXEC) != 0) return -2;
    const detail::Fd from(touched[0]);
    detail::Fd into(touched[1]);
    Process producer([&] { return stall(wire, into.get()); });
    into.reset();
    wire.producer.reset();
    Process receiver([&] {
        auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        return range ? receive(*range) : 100;
    });
    if (!await_byte(from.get())) return -3;
    producer.kill();
    return receiver.wait();
}

TEST(LazyRange, EndsATouchWithABusErrorWhenTheProducerIsKilled) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    const int code = with_producer_killed([](LazyRange& range) {
        die_by_the_signal();
        return range.bytes()[1 << 20] == std::byte{1} ? 1 : 2;
    });
    EXPECT_TRUE(code == 1000 + SIGBUS || code == 1000 + SIGSEGV) << code;
}

TEST(LazyRange, EndsAllTouchesWhenTheProducerIsKilled) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    // Each thread ends by its own signal; the handler is the test's, not the library's.
    static thread_local sigjmp_buf back;
    const int code = with_producer_killed([](LazyRange& range) {
        struct sigaction jump {};
        jump.sa_handler = [](int) { ::siglongjmp(back, 1); };
        ::sigaction(SIGBUS, &jump, nullptr);
        ::sigaction(SIGSEGV, &jump, nullptr);
        std::atomic<int> ended{0};
        std::vector<std::thread> threads;
        for (std::size_t t = 0; t < 16; ++t)
            threads.emplace_back([&, t] {
                if (::sigsetjmp(back, 1) == 0) {
                    static_cast<void>(
                        *const_cast<volatile const std::byte*>(&range.bytes()[t % 8 * 1'000'000]));
                } else {
                    ++ended;
                }
            });
        for (auto& each : threads) each.join();
        return static_cast<int>(ended);
    });
    EXPECT_EQ(code, 16);
}

TEST(LazyRange, GivesAnErrorToAFetchWhenTheProducerIsKilled) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    const int code = with_producer_killed([](LazyRange& range) {
        const auto came = range.fetch(4096, 100'000);
        if (came) return 1;
        return range.producer_gone() ? came.error().code : 2;
    });
    EXPECT_EQ(code, ECONNRESET);
}

TEST(LazyRange, KeepsWhatIsThereWhenTheProducerIsKilled) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    Wire wire;
    Process producer([&] { return produce(wire, kOdd); });
    Process receiver([&] {
        auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        if (!range || !range->fetch(100'000, 200'000)) return 1;
        producer.kill();
        if (!wait_until([&] { return range->producer_gone(); })) return 2;
        if (!range->fetch(100'000, 200'000)) return 3;
        if (wrong(range->bytes(), 100'000, 200'000)) return 4;
        const auto missing = range->fetch(0, kOdd);
        if (missing || missing.error().code != ECONNRESET) return 5;
        // A system call is told so too.
        int ends[2];
        if (::pipe(ends) != 0) return 6;
        if (::write(ends[1], range->bytes().data() + (16 << 20), 1) != -1) return 7;
        return 0;
    });
    EXPECT_EQ(receiver.wait(), 0);
}

TEST(LazyRange, EndsTouchesWithoutPoisonToo) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    Process receiver([] {
        die_by_the_signal();
        auto opened = detail::uffd::open();
        int ends[2];
        if (!opened || ::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0) return 1;
        constexpr std::size_t kSize = 1 << 20;
        auto* memory = static_cast<std::byte*>(
            ::mmap(nullptr, kSize, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        bool can_poison = false;
        if (!detail::uffd::watch(opened->fd.get(), memory, kSize, can_poison)) return 2;
        const auto range = std::make_shared<detail::FaultRange>(
            memory, kSize, Access::read_only, std::move(opened->fd), detail::Fd(ends[0]),
            false /* can_poison */, true);
        if (!detail::watch(range)) return 3;
        ::close(ends[1]);  // the producer's
        return range->address()[4096] == std::byte{1} ? 4 : 5;
    });
    EXPECT_EQ(receiver.wait(), 1000 + SIGSEGV);
}

TEST(LazyRange, IsNotThereInAForkedChild) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(1 << 20);
    detail::LazyServer server(bytes, {}, {});
    LazyRange range = map_from(server, bytes.size());
    EXPECT_EQ(range.bytes()[0], expected(0));
    Process toucher([&] {
        die_by_the_signal();
        return range.bytes()[8192] == std::byte{0} ? 1 : 2;
    });
    EXPECT_EQ(toucher.wait(), 1000 + SIGSEGV);
    Process other([&] {
        if (range.fetch(0, 10)) return 1;
        // What comes to lie at its addresses is not unmapped with it.
        auto* at = const_cast<std::byte*>(range.bytes().data());
        if (::mmap(at, 4096, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != at)
            return 2;
        range = LazyRange();
        *at = std::byte{1};
        return 0;
    });
    EXPECT_EQ(other.wait(), 0);
    EXPECT_EQ(wrong(range.bytes(), 0, bytes.size()), std::nullopt);
}

TEST(LazyRange, ComesAndGoesWithoutLeavingAnything) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(1 << 20);
    detail::LazyServer server(bytes, {}, {});
    const auto descriptors = [] {
        int count = 0;
        for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
        return count;
    };
    const int before = descriptors() + 2;  // the server's doorbell, the watcher's epoll
    std::mt19937 random(3);
    for (int i = 0; i < 300; ++i) {
        const LazyRange range = map_from(server, bytes.size());
        for (int touches = 0; touches < 5; ++touches) {
            const std::size_t at = random() % bytes.size();
            ASSERT_EQ(range.bytes()[at], expected(at));
        }
    }
    EXPECT_TRUE(wait_until([&] { return server.totals().attached == 0; }));
    EXPECT_TRUE(wait_until([&] { return descriptors() <= before; })) << descriptors() - before;
    EXPECT_EQ(server.totals().receivers, 300U);
}

TEST(LazyRange, SystemCallsOfAnOrdinaryUserNeedAFetch) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    Wire wire;
    Process producer([&] { return produce(wire, kOdd); });
    Process receiver([&] {
        if (as_nobody() != 0) return 126;
        auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        if (!range) return 1;
        if (range->fell_back()) return 77;  // not allowed here at all
        int ends[2];
        if (::pipe(ends) != 0) return 2;
        const std::byte* at = range->bytes().data() + (1 << 20);
        const ssize_t unfetched = ::write(ends[1], at, 100);
        if (!range->system_calls_wait() && (unfetched != -1 || errno != EFAULT)) return 3;
        if (!range->fetch(1 << 20, 100) || ::write(ends[1], at, 100) != 100) return 4;
        return wrong(range->bytes(), 0, kOdd) ? 5 : 0;
    });
    const int code = receiver.wait();
    if (code == 77) GTEST_SKIP() << "ordinary users have no userfaultfd here";
    EXPECT_EQ(code, 0);
}

TEST(LazyRange, IsMappedWholeWhenAskedForOrFromAnotherUser) {
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    LazyMapOptions options;
    options.whole = true;
    const LazyRange asked = map_from(server, kOdd, options);
    EXPECT_TRUE(asked.fell_back());
    EXPECT_EQ(asked.why(), "asked for");
    EXPECT_EQ(wrong(asked.bytes(), 0, kOdd), std::nullopt);
    EXPECT_EQ(asked.resident(), kOdd);
    EXPECT_TRUE(asked.fetch(0, kOdd));
    EXPECT_EQ(asked.fetch(0, kOdd + 1).error().code, EINVAL);
    const auto foreign = LazyRange::map(1, kOdd, false, {}, to(server));
    ASSERT_TRUE(foreign) << foreign.error().message();
    EXPECT_EQ(foreign->why(), "the producer is another user");
    EXPECT_EQ(wrong(foreign->bytes(), 0, kOdd), std::nullopt);
    LazyMapOptions trusting;
    trusting.trust_any_user = true;
    const auto trusted = LazyRange::map(1, kOdd, false, trusting, to(server));
    ASSERT_TRUE(trusted);
    EXPECT_NE(trusted->why(), "the producer is another user");
}

// Every userfaultfd(2) is EPERM from now on.
bool forbid_userfaultfd() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{4, program};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(LazyRange, IsMappedWholeWithoutPermissionForUserfaultfd) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    Wire wire;
    Process producer([&] { return produce(wire, kOdd); });
    Process receiver([&] {
        if (as_nobody() != 0 || !forbid_userfaultfd()) return 126;
        auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        if (!range) return 1;
        if (!range->fell_back()) return 2;
        if (range->why() != "userfaultfd: Operation not permitted") return 3;
        return wrong(range->bytes(), 0, kOdd) ? 4 : 0;
    });
    EXPECT_EQ(receiver.wait(), 0);
}

TEST(LazyRange, IsNotTakenFromAProducerWhoCouldStillChangeIt) {
    // Maps the memory writable and says that it is full.
    const auto hostile = [&](const ControlLazy& request,
                             std::span<const int> fds) -> Expected<void> {
        void* mine = ::mmap(nullptr, request.length, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
        EXPECT_NE(mine, MAP_FAILED);
        const detail::LazyPacket full{detail::LazyWord::kWhole, 0, 0, 0, 0};
        EXPECT_EQ(::send(fds[1], &full, sizeof full, 0), static_cast<ssize_t>(sizeof full));
        return {};
    };
    const auto range = LazyRange::map(1, 10'000, false, {}, hostile);
    ASSERT_FALSE(range);
    EXPECT_EQ(range.error().code, EBUSY);
}

TEST(LazyRange, SaysThatTheProducerIsGoneOrDoesNotAnswer) {
    const auto drop = [](const ControlLazy&, std::span<const int>) -> Expected<void> { return {}; };
    EXPECT_EQ(LazyRange::map(1, 10'000, true, {}, drop).error().code, ECONNRESET);
    EXPECT_EQ(LazyRange::map(1, 10'000, false, {}, drop).error().code, ECONNRESET);
    const auto refuse = [](const ControlLazy&, std::span<const int>) -> Expected<void> {
        return Error{EACCES, "attach"};
    };
    EXPECT_EQ(LazyRange::map(1, 10'000, true, {}, refuse).error().code, EACCES);
    EXPECT_EQ(LazyRange::map(1, 0, true, {}, drop).error().code, EINVAL);
    EXPECT_EQ(LazyRange::map(1, UINT64_MAX, true, {}, drop).error().code, EINVAL);
    std::vector<detail::Fd> kept;
    const auto sit = [&](const ControlLazy&, std::span<const int> fds) -> Expected<void> {
        for (const int fd : fds) kept.emplace_back(::dup(fd));
        return {};
    };
    LazyMapOptions impatient;
    impatient.timeout = 10ms;
    EXPECT_EQ(LazyRange::map(1, 10'000, true, impatient, sit).error().code, ETIMEDOUT);
    EXPECT_EQ(LazyRange::map(1, 10'000, false, impatient, sit).error().code, ETIMEDOUT);
}

TEST(LazyServer, EndsItsReceiversWhenItStops) {
    SKIP_WITHOUT_USERFAULTFD();
    std::optional<detail::LazyServer> server;
    auto bytes = content(kOdd);
    server.emplace(bytes, detail::LazyTuning{}, nullptr);
    const LazyRange range = map_from(*server, kOdd);
    ASSERT_TRUE(range.fetch(0, 4096));
    server.reset();
    std::fill(bytes.begin(), bytes.end(), std::byte{0xee});  // nobody reads it any more
    EXPECT_TRUE(wait_until([&] { return range.producer_gone(); }));
    EXPECT_TRUE(range.fetch(0, 4096));
    EXPECT_EQ(range.fetch(16 << 20, 4096).error().code, ECONNRESET);
}

// Whether a thread of this process waits in a read of one; for root, where the kernel tells.
bool reads_a_userfaultfd() {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream file(task.path() / "wchan");
        std::string place;
        file >> place;
        if (place.starts_with("userfaultfd")) return true;
    }
    return false;
}

TEST(LazyServer, EndsThoughAReceiverHoldsItsThreadUp) {
    SKIP_WITHOUT_USERFAULTFD();
    std::vector<std::byte> bytes = content(100'000);
    auto opened = detail::uffd::open();
    ASSERT_TRUE(opened);
    int ends[2] = {-1, -1};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    const detail::Fd mine(ends[0]);
    {
        detail::LazyServer server(bytes, {}, {});
        ControlLazy request;
        request.length = detail::whole_pages(bytes.size());
        request.address = 0x10000;
        server.attach(request, detail::Fd(::dup(opened->fd.get())), detail::Fd(ends[1]));
        EXPECT_EQ(server.totals().attached, 1U);
        // Reads of it wait from now on, and nothing ever comes.
        ASSERT_EQ(::fcntl(opened->fd.get(), F_SETFL, 0), 0);
        const detail::LazyPacket fetch{detail::LazyWord::kFetch, 0, 1, 0, 10};
        ASSERT_EQ(::send(mine.get(), &fetch, sizeof fetch, 0), static_cast<ssize_t>(sizeof fetch));
        EXPECT_TRUE(::geteuid() != 0 || wait_until(&reads_a_userfaultfd));
    }
    std::fill(bytes.begin(), bytes.end(), std::byte{0xee});
}

TEST(LazyServer, SeesThatAReceiverHasDied) {
    SKIP_WHERE_CHILDREN_HAVE_NO_THREADS();
    SKIP_WITHOUT_USERFAULTFD();
    Wire wire;
    const auto bytes = content(kOdd);
    detail::LazyServer server(bytes, {}, {});
    Process receiver([&] {
        auto range = LazyRange::map(1, kOdd, true, {}, wire.attach());
        if (!range || wrong(range->bytes(), 0, 1'000'000)) return 1;
        ::pause();
        return 0;
    });
    auto packet = detail::receive_packet(wire.producer.get(), "serve");
    ASSERT_TRUE(packet);
    server.attach(packet->as<ControlLazy>(), std::move(packet->fds[0]), std::move(packet->fds[1]));
    ASSERT_TRUE(wait_until([&] { return server.totals().pages >= 1'000'000 / 4096; }));
    EXPECT_EQ(server.totals().attached, 1U);
    EXPECT_FALSE(server.wait_idle(0ms));
    receiver.kill();
    EXPECT_TRUE(server.wait_idle(kPatience));
    EXPECT_EQ(server.totals().attached, 0U);
}

TEST(LazyServer, ReportsEveryTouchAndEveryPageOnce) {
    SKIP_WITHOUT_USERFAULTFD();
    std::atomic<std::uint64_t> faults{0};
    std::atomic<std::uint64_t> pages{0};
    const auto bytes = content(1 << 20);
    {
        detail::LazyServer server(bytes, {}, [&](std::uint64_t f, std::uint64_t p) {
            faults += f;
            pages += p;
        });
        const LazyRange range = map_from(server, bytes.size());
        EXPECT_EQ(wrong(range.bytes(), 0, bytes.size()), std::nullopt);
        LazyMapOptions whole;
        whole.whole = true;
        EXPECT_EQ(map_from(server, bytes.size(), whole).size(), bytes.size());
        EXPECT_TRUE(wait_until([&] { return pages == 512; })) << pages;
        EXPECT_EQ(server.totals().pages, 512U);
        EXPECT_EQ(server.totals().faults, faults);
        EXPECT_GT(faults, 0U);
    }
}

TEST(LazyServer, KnowsTheCpuOfAThreadAndGoesThereAndBack) {
    cpu_set_t own;
    ASSERT_EQ(::sched_getaffinity(0, sizeof own, &own), 0);
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE && cpus.size() < 2; ++cpu)
        if (CPU_ISSET(cpu, &own)) cpus.push_back(cpu);
    // A thread with a name that looks like the rest of its line, on each CPU in turn.
    for (const int cpu : cpus) {
        std::atomic<long> tid{0};
        std::atomic<bool> end{false};
        std::thread toucher([&] {
            cpu_set_t one;
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            ::sched_setaffinity(0, sizeof one, &one);
            ::prctl(PR_SET_NAME, "a) R 1 2 3 (b");
            tid = ::syscall(SYS_gettid);
            while (!end) std::this_thread::yield();
        });
        ASSERT_TRUE(wait_until([&] { return tid != 0; }));
        EXPECT_EQ(detail::cpu_of_thread(static_cast<std::uint32_t>(tid)), cpu);
        detail::ToucherCpu place;
        place.follow(static_cast<std::uint32_t>(tid));
        EXPECT_TRUE(place.following());
        EXPECT_EQ(::sched_getcpu(), cpu);
        place.leave();
        EXPECT_FALSE(place.following());
        cpu_set_t after;
        ASSERT_EQ(::sched_getaffinity(0, sizeof after, &after), 0);
        EXPECT_TRUE(CPU_EQUAL(&own, &after));
        end = true;
        toucher.join();
    }
    EXPECT_EQ(detail::cpu_of_thread(~std::uint32_t{0}), -1);
}

TEST(LazyServer, DropsReceiversThatSendItNonsense) {
    const auto bytes = content(100'000);
    detail::LazyServer server(bytes, {}, {});
    int number = 0;
    const auto dropped = [&](ControlLazy request, detail::Fd target) {
        ++number;
        int ends[2] = {-1, -1};
        EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        const detail::Fd mine(ends[0]);
        server.attach(request, std::move(target), detail::Fd(ends[1]));
        pollfd one{mine.get(), POLLIN, 0};
        char byte = 0;
        return ::poll(&one, 1, static_cast<int>(kPatience.count())) == 1 &&
               ::recv(mine.get(), &byte, 1, 0) <= 0;
    };
    ControlLazy request;
    request.length = detail::whole_pages(bytes.size());
    request.address = 0x10000;
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    EXPECT_TRUE(dropped(request, detail::Fd(ends[0])));  // would be waited for
    EXPECT_TRUE(dropped(request, detail::Fd(ends[1])));
    EXPECT_TRUE(dropped(request, detail::Fd(::open("/dev/zero", O_RDWR | O_CLOEXEC))));
    request.mode = LazyMode::kWhole;
    EXPECT_TRUE(dropped(request, detail::Fd(::open("/dev/null", O_RDWR | O_CLOEXEC))));
    detail::Fd small(::memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    EXPECT_TRUE(dropped(request, std::move(small)));
    request.mode = static_cast<LazyMode>(7);
    EXPECT_TRUE(dropped(request, detail::Fd(::memfd_create("other", MFD_CLOEXEC))));
    if (auto opened = detail::uffd::open()) {
        request.mode = LazyMode::kFaults;
        request.length += 4096;
        EXPECT_TRUE(dropped(request, detail::Fd(::dup(opened->fd.get()))));
        request.length -= 4096;
        request.address = UINT64_MAX - 4095;
        EXPECT_TRUE(dropped(request, detail::Fd(::dup(opened->fd.get()))));
        request.address = 0x10001;
        EXPECT_TRUE(dropped(request, detail::Fd(::dup(opened->fd.get()))));
    }
    EXPECT_EQ(server.totals().attached, 0U);
    LazyMapOptions whole;
    whole.whole = true;
    EXPECT_EQ(wrong(map_from(server, bytes.size(), whole).bytes(), 0, bytes.size()), std::nullopt);
}

TEST(LazyServer, DropsReceiversThatAskForNonsense) {
    SKIP_WITHOUT_USERFAULTFD();
    const auto bytes = content(100'000);
    detail::LazyServer server(bytes, {}, {});
    const detail::LazyPacket bad[] = {
        {detail::LazyWord::kFetch, 0, 1, 0, 100'001},
        {detail::LazyWord::kFetch, 0, 1, UINT64_MAX, 10},
        {detail::LazyWord::kFetch, 0, 1, 10, UINT64_MAX},
        {detail::LazyWord::kServing, 0, 1, 0, 0},
    };
    for (const auto& packet : bad) {
        auto opened = detail::uffd::open();
        ASSERT_TRUE(opened);
        ControlLazy request;
        request.length = detail::whole_pages(bytes.size());
        request.address = 0x10000;  // where nothing is: never mind
        int ends[2] = {-1, -1};
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        const detail::Fd mine(ends[0]);
        server.attach(request, std::move(opened->fd), detail::Fd(ends[1]));
        EXPECT_TRUE(server.totals().attached > 0);
        EXPECT_EQ(::send(mine.get(), &packet, sizeof packet, 0),
                  static_cast<ssize_t>(sizeof packet));
        EXPECT_TRUE(server.wait_idle(kPatience));
        detail::LazyPacket answer;
        EXPECT_EQ(::recv(mine.get(), &answer, sizeof answer, 0),
                  static_cast<ssize_t>(sizeof answer));  // kServing, and then the end
        EXPECT_LE(::recv(mine.get(), &answer, sizeof answer, 0), 0);
    }
}

}  // namespace
}  // namespace ipcfs
