// kill -9: a child process appends and is killed at any moment, again and again, also while it recovers.
// What it was told to be durable is there, in order, without a gap, and nothing else.
#include <csignal>
#include <cstdio>
#include <fcntl.h>
#include <sys/wait.h>

#include "silent_logger.hpp"
#include "store_world.hpp"

namespace ipcfs::store {
namespace {

std::string content_of(std::uint64_t sequence) {
    return std::to_string(sequence) + std::string(sequence * 53 % 900, 'k');
}

Options options_in(const std::string& directory) {
    Options options;
    options.directory = directory + "/store";
    options.segment_bytes = 128 << 10;
    return options;
}

// What the child says by its pipe, as it happens.
struct Said {
    char kind;  // 'd': durable, 'e': is about to be erased, 'E': erased durably
    std::uint64_t sequence;
};

class Tells final : public Completion {
public:
    Tells(int to, char kind, std::uint64_t sequence) : to_(to), said_{kind, sequence} {}
    void durable(int error) noexcept override {
        if (error == 0 && ::write(to_, &said_, sizeof said_) != sizeof said_) ::_exit(3);
        delete this;
    }

private:
    int to_;
    Said said_;
};

// Appends until it is killed.
[[noreturn]] void child(const std::string& directory, std::uint64_t next, int to) {
    SilentLogger silent;
    SegmentStore store(options_in(directory), silent);
    Told told;
    if (!store.recover(told)) ::_exit(1);
    if (!store.put_channel(1, as_span("channel"))) ::_exit(1);
    std::mt19937_64 random(next);
    std::vector<std::uint64_t> live;
    for (const auto& [sequence, message] : told.channels[1].messages) live.push_back(sequence);
    const auto say = [&](char kind, std::uint64_t sequence) {
        const Said said{kind, sequence};
        if (::write(to, &said, sizeof said) != sizeof said) ::_exit(3);
    };
    say('r', 0);
    for (;; ++next) {
        const auto put = put_one(store, {1, next}, content_of(next), next);
        if (!put) ::_exit(2);
        live.push_back(next);
        store.when_durable(*put, *new Tells(to, 'd', next));
        if (next % 8 == 0) wait_durable(store, *put);
        while (live.size() > 300 || (random() % 3 == 0 && !live.empty())) {
            const std::size_t at = random() % live.size();
            const std::uint64_t gone = live[at];
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
            say('e', gone);
            store.when_durable(*store.erase({1, gone}), *new Tells(to, 'E', gone));
        }
    }
}

class Kill : public testing::Test {
protected:
    // Lets a child live until it has said `words` things and a little longer.
    void live_and_die(std::size_t words, std::mt19937_64& random) {
        int ends[2];
        ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
        const pid_t pid = ::fork();
        ASSERT_GE(pid, 0);
        if (pid == 0) {
            ::close(ends[0]);
            child(directory_.path, next_, ends[1]);
        }
        ::close(ends[1]);
        std::size_t heard = 0;
        Said said{};
        const auto hear = [&] {
            if (::read(ends[0], &said, sizeof said) != sizeof said) return false;
            ++heard;
            if (said.kind == 'd') durable_.insert(said.sequence);
            if (said.kind == 'e') perhaps_erased_.insert(said.sequence);
            if (said.kind == 'E') erased_.insert(said.sequence);
            return true;
        };
        while (heard < words && hear()) continue;
        EXPECT_GE(heard, words) << "the child ended by itself";
        ::usleep(static_cast<useconds_t>(random() % 2000));
        ::kill(pid, SIGKILL);
        while (hear()) continue;
        ::close(ends[0]);
        int status = 0;
        ::waitpid(pid, &status, 0);
        EXPECT_TRUE(WIFSIGNALED(status)) << status;
    }

    void check() {
        KeepingLogger log;
        SegmentStore store(options_in(directory_.path), log);
        Told told;
        const auto done = store.recover(told);
        ASSERT_TRUE(done) << done.error().message();
        ASSERT_FALSE(store.health().damaged) << store.health().text;
        EXPECT_FALSE(store.may_have_lost_marks());
        EXPECT_GT(store.generation(), generation_);
        generation_ = store.generation();
        const auto& channel = told.channels[1];
        for (const auto& [sequence, message] : channel.messages) {
            ASSERT_EQ(message.content, content_of(sequence));
            ASSERT_FALSE(erased_.contains(sequence)) << sequence << " came back";
        }
        const std::uint64_t last = channel.last_sequence;
        if (!durable_.empty()) {
            ASSERT_GE(last, *durable_.rbegin());
        }
        // The death of a process takes nothing at all that had been appended.
        for (std::uint64_t i = 1; i <= last; ++i)
            ASSERT_TRUE(perhaps_erased_.contains(i) || channel.messages.contains(i))
                << i << " of " << last << " is lost";
        const std::set<std::uint64_t> requests(told.requests.begin(), told.requests.end());
        for (std::uint64_t i = last > 500 ? last - 500 : 1; i <= last; ++i)
            ASSERT_TRUE(requests.contains(i)) << i;
        next_ = last + 1;
        alive_ = channel.messages.size();
    }

    TempDirectory directory_;
    std::uint64_t next_ = 1;
    std::uint64_t generation_ = 0;
    std::size_t alive_ = 0;
    std::set<std::uint64_t> durable_, perhaps_erased_, erased_;
};

TEST_F(Kill, OfAnAppendingProcessFiftyTimesLosesNothing) {
    const std::uint64_t number = seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(number));
    std::mt19937_64 random(number);
    for (int i = 0; i < 50; ++i) {
        live_and_die(1 + random() % 600, random);
        if (HasFatalFailure()) return;
        check();
        if (HasFatalFailure()) return;
    }
    std::printf("%llu puts, %zu told durable, %zu alive\n",
                static_cast<unsigned long long>(next_ - 1), durable_.size(), alive_);
    EXPECT_GT(durable_.size(), 1000U);
}

TEST_F(Kill, InTheMiddleOfRecoveryLosesNothing) {
    const std::uint64_t number = seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(number));
    std::mt19937_64 random(number);
    live_and_die(3000, random);
    for (int i = 0; i < 40; ++i) {
        const pid_t pid = ::fork();
        ASSERT_GE(pid, 0);
        if (pid == 0) {
            SilentLogger silent;
            SegmentStore store(options_in(directory_.path), silent);
            Told told;
            ::_exit(store.recover(told) ? 0 : 1);
        }
        ::usleep(static_cast<useconds_t>(random() % 12000));
        ::kill(pid, SIGKILL);
        int status = 0;
        ::waitpid(pid, &status, 0);
        if (WIFEXITED(status)) {
            EXPECT_EQ(WEXITSTATUS(status), 0);
        }
    }
    check();
}

}  // namespace
}  // namespace ipcfs::store
