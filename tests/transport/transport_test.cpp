// The transport on a real mount, over io_uring and over /dev/fuse. Clients are threads and programs
// of the test; a watchdog unmounts when one hangs, since a thread blocked in a dead mount cannot
// even be killed.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <numeric>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "pipe_fs.hpp"
#include <fuse/probe.hpp>

extern char** environ;

namespace ipcfs::fuse {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr seconds kPatience{30};

template <class Condition>
bool eventually(Condition&& holds) {
    const auto deadline = steady_clock::now() + kPatience;
    while (!holds()) {
        if (steady_clock::now() > deadline) return false;
        std::this_thread::yield();
    }
    return true;
}

class Watchdog {
public:
    explicit Watchdog(Session& session)
        : thread_([this, &session] {
              std::unique_lock hold(mutex_);
              if (called_off_.wait_for(hold, 2 * kPatience, [this] { return done_; })) return;
              ADD_FAILURE() << "a client hung; unmounting";
              session.stop();
          }) {}
    ~Watchdog() {
        {
            std::scoped_lock hold(mutex_);
            done_ = true;
        }
        called_off_.notify_one();
        thread_.join();
    }

private:
    std::mutex mutex_;
    std::condition_variable called_off_;
    bool done_ = false;
    std::thread thread_;
};

void pin(unsigned cpu) {
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(cpu % std::thread::hardware_concurrency(), &cpus);
    ::sched_setaffinity(0, sizeof cpus, &cpus);
}

pid_t spawn_cat(const std::string& path) {
    std::string words[] = {"cat", path};
    char* argv[] = {words[0].data(), words[1].data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t child = -1;
    if (::posix_spawnp(&child, "cat", &actions, nullptr, argv, environ) != 0) child = -1;
    posix_spawn_file_actions_destroy(&actions);
    return child;
}

// Reads one message, again after EINTR; -errno on failure.
template <class T>
ssize_t read_message(int fd, T& value, std::atomic<long>* interrupted = nullptr) {
    ssize_t got = 0;
    while ((got = ::read(fd, &value, sizeof value)) < 0 && errno == EINTR)
        if (interrupted) ++*interrupted;
    return got < 0 ? -errno : got;
}

class Transported : public testing::TestWithParam<Transport> {
protected:
    void SetUp() override {
        if (::access("/dev/fuse", R_OK | W_OK) != 0 || ::geteuid() != 0)
            GTEST_SKIP() << "needs root and /dev/fuse";
        if (GetParam() == Transport::kUring && !probe_kernel().uring_enabled.value_or(false))
            GTEST_SKIP() << "FUSE over io_uring is off in this kernel";
        std::string pattern = testing::TempDir() + "transport.XXXXXX";
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        path_ = pattern;
    }
    void TearDown() override {
        fs_.reset();
        if (!path_.empty()) std::filesystem::remove(path_);
    }

    void serve(unsigned depth = 256) {
        SessionConfig config;
        config.transport = GetParam();
        config.ring_depth = depth;
        config.on_end = [this](const std::string& reason) {
            std::scoped_lock hold(end_mutex_);
            end_reason_ = reason;
        };
        auto fs = PipeFs::serve(path_, std::move(config));
        ASSERT_TRUE(fs) << fs.error().message();
        fs_ = std::move(*fs);
        const auto& report = fs_->session().report();
        if (report.transport != GetParam()) GTEST_SKIP() << report.why_not_uring;
    }
    int open_pipe(int flags = O_RDWR) {
        const int fd = ::open((path_ + "/pipe").c_str(), flags | O_CLOEXEC);
        EXPECT_GE(fd, 0) << std::strerror(errno);
        return fd;
    }
    bool parked(std::size_t count) {
        return eventually([&] { return fs_->session().parked() == count; });
    }
    std::string end_reason() {
        std::scoped_lock hold(end_mutex_);
        return end_reason_;
    }

    std::string path_;
    std::mutex end_mutex_;
    std::string end_reason_;
    std::unique_ptr<PipeFs> fs_;
};

TEST_P(Transported, DeliversEachMessageOnceWhenRepliesCrossBetweenTheCpus) {
    constexpr unsigned kPairs = 4;
    constexpr long kMessages = 4000;
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    std::atomic<long> to_read{0}, to_write{0}, faults{0};
    std::vector<std::atomic<int>> seen(kMessages);
    std::vector<std::thread> clients;
    for (unsigned i = 0; i < kPairs; ++i) {
        clients.emplace_back([&, i] {
            pin(i);
            const Fd fd(open_pipe(O_RDONLY));
            while (to_read.fetch_add(1) < kMessages) {
                long value = -1;
                if (read_message(fd.get(), value) != sizeof value || value < 0 ||
                    value >= kMessages)
                    ++faults;
                else
                    ++seen[static_cast<std::size_t>(value)];
            }
        });
        clients.emplace_back([&, i] {
            pin(i / 2);
            const Fd fd(open_pipe(O_WRONLY));
            for (long value = 0; (value = to_write.fetch_add(1)) < kMessages;)
                if (::write(fd.get(), &value, sizeof value) != sizeof value) ++faults;
        });
    }
    for (auto& client : clients) client.join();
    EXPECT_EQ(faults, 0);
    EXPECT_TRUE(
        std::all_of(seen.begin(), seen.end(), [](const auto& times) { return times == 1; }));
    EXPECT_EQ(fs_->queued(), 0U);
    EXPECT_EQ(fs_->session().parked(), 0U);
}

TEST_P(Transported, CarriesTheLargestWholeWriteUnaltered) {
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    std::vector<unsigned> sent((1 << 20) / sizeof(unsigned) - 1024), got(sent.size() + 1024);
    std::iota(sent.begin(), sent.end(), 7U);
    const std::size_t bytes = sent.size() * sizeof(unsigned);
    const Fd fd(open_pipe());
    ASSERT_EQ(::write(fd.get(), sent.data(), bytes), static_cast<ssize_t>(bytes));
    ASSERT_EQ(::read(fd.get(), got.data(), got.size() * sizeof(unsigned)),
              static_cast<ssize_t>(bytes));
    got.resize(sent.size());
    EXPECT_EQ(got, sent);
}

// Bytes that differ from page to page and within one.
std::string pattern(std::size_t size) {
    std::string text(size, '\0');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i ^ i >> 8 ^ i >> 16);
    return text;
}

TEST_P(Transported, SendsWhatLiesInAFileAndNothingBehindItsEnd) {
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    Fd memory(::memfd_create("transport", MFD_CLOEXEC));
    const std::string content = pattern((2 << 20) + 1234);
    ASSERT_EQ(::write(memory.get(), content.data(), content.size()),
              static_cast<ssize_t>(content.size()));
    fs_->show(std::move(memory));
    const Fd file(::open((path_ + "/memory").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(file);
    for (const std::size_t size :
         std::initializer_list<std::size_t>{1, 100, 4096, 16383, 16384, 16385, 131072, 1 << 20}) {
        for (const std::size_t at :
             std::initializer_list<std::size_t>{0, 1, 4095, 5000, (1 << 20) - 7, (2 << 20) - 1,
                                                (2 << 20) + 1233, (2 << 20) + 1234, 3 << 20}) {
            std::string buffer(size + 64, '#');
            const ssize_t got = ::pread(file.get(), buffer.data(), size, static_cast<off_t>(at));
            const std::string there = at < content.size() ? content.substr(at, size) : "";
            ASSERT_EQ(got, static_cast<ssize_t>(there.size())) << size << " at " << at;
            EXPECT_TRUE(buffer.starts_with(there)) << size << " at " << at;
            EXPECT_EQ(buffer.substr(there.size()), std::string(buffer.size() - there.size(), '#'))
                << "more than there is: " << size << " at " << at;
        }
    }
    // Again after the short ones: nothing of them was left over.
    std::string whole(1 << 20, '#');
    ASSERT_EQ(::pread(file.get(), whole.data(), whole.size(), 0), 1 << 20);
    EXPECT_TRUE(content.starts_with(whole));
}

TEST_P(Transported, AnswersEioWhenTheFileCannotBeRead) {
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    Fd unreadable(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    fs_->show(std::move(unreadable));
    const Fd file(::open((path_ + "/memory").c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(file);
    std::string buffer(1 << 20, '#');
    for (const std::size_t size : {std::size_t{10}, buffer.size()}) {
        EXPECT_EQ(::read(file.get(), buffer.data(), size), -1);
        EXPECT_EQ(errno, EIO);
    }
}

TEST_P(Transported, LetsClientsMapMemoryPastIt) {
    serve();
    if (!fs_ || IsSkipped()) return;
    if (!fs_->session().report().passthrough)
        GTEST_SKIP() << fs_->session().report().why_not_passthrough;
    Watchdog watchdog(fs_->session());
    constexpr std::size_t kSize = 1 << 20;
    Fd memory(::memfd_create("transport", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(memory.get(), kSize), 0);
    const int memory_file = memory.get();
    fs_->show(std::move(memory));
    // Each open after the other has a backing of its own.
    for (int round = 0; round < 100; ++round) {
        const Fd file(::open((path_ + "/direct").c_str(), O_RDWR | O_CLOEXEC));
        ASSERT_TRUE(file) << strerror(errno) << " in round " << round;
        auto* const at = static_cast<char*>(
            ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0));
        ASSERT_NE(at, MAP_FAILED) << strerror(errno);
        const char sign = static_cast<char>('a' + round % 26);
        at[4096] = sign;
        char seen = 0;
        EXPECT_EQ(::pread(memory_file, &seen, 1, 4096), 1);
        EXPECT_EQ(seen, sign);
        ASSERT_EQ(::munmap(at, kSize), 0);
    }
}

TEST_P(Transported, FreesReadersThatAreKilledAndLosesNoMessage) {
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    std::vector<pid_t> children;
    for (int i = 0; i < 5; ++i) children.push_back(spawn_cat(path_ + "/pipe"));
    ASSERT_TRUE(parked(children.size()));
    for (const pid_t child : children) ::kill(child, SIGKILL);
    for (const pid_t child : children) {
        int status = 0;
        EXPECT_TRUE(eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
        EXPECT_TRUE(WIFSIGNALED(status));
    }
    EXPECT_TRUE(parked(0));
    const Fd fd(open_pipe());
    const long sent = 42;
    long got = 0;
    ASSERT_EQ(::write(fd.get(), &sent, sizeof sent), static_cast<ssize_t>(sizeof sent));
    EXPECT_EQ(fs_->queued(), 1U);
    ASSERT_EQ(read_message(fd.get(), got), static_cast<ssize_t>(sizeof got));
    EXPECT_EQ(got, sent);
}

TEST_P(Transported, GivesAReaderEintrAtASignal) {
    serve();
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    struct sigaction action {
    }, before{};
    action.sa_handler = [](int) {};
    ::sigaction(SIGUSR1, &action, &before);
    std::atomic<int> error{0};
    std::thread reader([&] {
        const Fd fd(open_pipe(O_RDONLY));
        char byte = 0;
        error = ::read(fd.get(), &byte, 1) < 0 ? errno : -1;
    });
    EXPECT_TRUE(parked(1));
    ::pthread_kill(reader.native_handle(), SIGUSR1);
    reader.join();
    EXPECT_EQ(error, EINTR);
    EXPECT_EQ(fs_->session().parked(), 0U);
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_P(Transported, ServesWritersWhenMoreReadersWaitThanItHasEntries) {
    constexpr int kReaders = 60;
    serve(32);
    if (!fs_ || IsSkipped()) return;
    Watchdog watchdog(fs_->session());
    std::atomic<long> interrupted{0}, sum{0}, started{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < kReaders; ++i)
        readers.emplace_back([&] {
            pin(0);
            const Fd fd(open_pipe(O_RDONLY));
            ++started;
            long value = 0;
            if (read_message(fd.get(), value, &interrupted) == sizeof value) sum += value;
        });
    const bool uring = GetParam() == Transport::kUring;
    ASSERT_TRUE(eventually([&] {
        return uring ? fs_->session().overload().rotations > 0
                     : fs_->session().parked() == kReaders;
    }));
    if (uring) {
        EXPECT_NE(fs_->session().overload().since, 0);
    }
    std::thread writer([&] {
        pin(0);
        const Fd fd(open_pipe(O_WRONLY));
        for (long value = 1; value <= kReaders; ++value)
            EXPECT_EQ(::write(fd.get(), &value, sizeof value), static_cast<ssize_t>(sizeof value));
    });
    writer.join();
    for (auto& reader : readers) reader.join();
    EXPECT_EQ(sum, kReaders * (kReaders + 1) / 2);
    EXPECT_EQ(interrupted > 0, uring);
    EXPECT_TRUE(eventually([&] { return fs_->session().overload().since == 0; }));
    EXPECT_EQ(fs_->session().overload().lost_entries, 0U);
}

TEST_P(Transported, CountsAWriteOnAnOpenFileAsOneRequest) {
    serve();
    if (!fs_ || IsSkipped()) return;
    const Fd fd(open_pipe());
    const auto before = fs_->session().requests();
    ASSERT_EQ(::write(fd.get(), "x", 1), 1);
    const auto after = fs_->session().requests();
    EXPECT_EQ(after[FUSE_WRITE] - before[FUSE_WRITE], 1U);
    EXPECT_EQ(std::accumulate(after.begin(), after.end(), 0UL) -
                  std::accumulate(before.begin(), before.end(), 0UL),
              1U);
}

TEST_P(Transported, EndsWaitingReadersWhenItStops) {
    serve();
    if (!fs_ || IsSkipped()) return;
    const pid_t child = spawn_cat(path_ + "/pipe");
    ASSERT_TRUE(parked(1));
    fs_->session().stop();
    int status = 0;
    ASSERT_TRUE(eventually([&] { return ::waitpid(child, &status, WNOHANG) == child; }));
    EXPECT_EQ(WEXITSTATUS(status), 1);
    EXPECT_EQ(fs_->session().parked(), 0U);
    EXPECT_FALSE(top_mount_at(path_));
    EXPECT_EQ(end_reason(), "") << "told of an end that was asked for";
    EXPECT_EQ(fs_->session().notify_inval_inode(FUSE_ROOT_ID, 0, 0).error().code, ENOTCONN);
}

TEST_P(Transported, TellsWhenItIsUnmountedFromOutside) {
    serve();
    if (!fs_ || IsSkipped()) return;
    ASSERT_EQ(::umount2(path_.c_str(), 0), 0);
    EXPECT_TRUE(eventually([&] { return !end_reason().empty(); }));
}

TEST_P(Transported, LeavesAnotherFileSystemOnItsMountPointAlone) {
    serve();
    if (!fs_ || IsSkipped()) return;
    ASSERT_EQ(::umount2(path_.c_str(), 0), 0);
    ASSERT_EQ(::mount("other", path_.c_str(), "tmpfs", 0, nullptr), 0);
    fs_->session().stop();
    const auto top = top_mount_at(path_);
    EXPECT_TRUE(top && top->type == "tmpfs");
    EXPECT_EQ(::umount2(path_.c_str(), 0), 0);
}

TEST_P(Transported, ClearsTheMountOfAKilledDaemonOnce) {
    int ready[2];
    ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t daemon = ::fork();
    if (daemon == 0) {
        SessionConfig config;
        config.transport = GetParam();
        config.ring_depth = 16;
        const auto fs = PipeFs::serve(path_, std::move(config));
        [[maybe_unused]] const auto told = ::write(ready[1], fs ? "y" : "n", 1);
        for (;;) ::pause();
    }
    char said = 0;
    ASSERT_EQ(::read(ready[0], &said, 1), 1);
    ASSERT_EQ(said, 'y');
    EXPECT_FALSE(*clear_stale_mount(path_)) << "cleared a living mount";
    ::kill(daemon, SIGKILL);
    ::waitpid(daemon, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    ASSERT_TRUE(top_mount_at(path_));
    EXPECT_TRUE(*clear_stale_mount(path_));
    EXPECT_FALSE(top_mount_at(path_));
    EXPECT_FALSE(*clear_stale_mount(path_));
}

INSTANTIATE_TEST_SUITE_P(, Transported, testing::Values(Transport::kClassic, Transport::kUring),
                         [](const auto& instance) {
                             return instance.param == Transport::kUring ? "Uring" : "Classic";
                         });

struct Recorder final : Parked {
    void interrupt(int) noexcept override { ++interrupts; }
    int interrupts = 0;
};

TEST(ParkedTable, RefusesTheRequestWhoseInterruptCameFirst) {
    ParkedTable table;
    const auto op = std::make_shared<Recorder>();
    EXPECT_EQ(table.find_or_remember(10, 0), nullptr);
    EXPECT_FALSE(table.add(10, op));
    EXPECT_TRUE(table.add(10, op)) << "remembered for longer than once";
    EXPECT_EQ(table.find_or_remember(10, 0), op);
}

TEST(ParkedTable, ForgetsAnOperationThatIsBeingAnswered) {
    ParkedTable table;
    const auto op = std::make_shared<Recorder>();
    ASSERT_TRUE(table.add(10, op));
    EXPECT_EQ(table.find(10), op);
    table.remove(10);
    EXPECT_EQ(table.size(), 0U);
    EXPECT_EQ(table.find_or_remember(10, 0), nullptr);
    EXPECT_EQ(op.use_count(), 1);
}

TEST(ParkedTable, ForgetsEarlyInterruptsThatAreStale) {
    ParkedTable table;
    for (std::uint64_t unique = 1; unique <= 1000; ++unique) table.find_or_remember(unique, 0);
    for (std::uint64_t unique = 1001; unique <= 2000; ++unique)
        table.find_or_remember(unique, 11 * kSecond);
    const auto op = std::make_shared<Recorder>();
    EXPECT_TRUE(table.add(1, op));
    EXPECT_FALSE(table.add(1500, op));
}

}  // namespace
}  // namespace ipcfs::fuse
