// More waiting readers on one CPU than its io_uring queue is deep, and 6,000 at the defaults:
// nothing stops, and each gets exactly its message.
#include <algorithm>
#include <atomic>
#include <dirent.h>
#include <fcntl.h>
#include <mutex>
#include <poll.h>
#include <pthread.h>
#include <set>
#include <signal.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/stat.h>

#include "child.hpp"

namespace ipcfs::test {
namespace {

constexpr int kMany = 6000;

// What the threads of the reading process tell the test.
struct Shared {
    std::atomic<int> reading;      // have opened and are about to read
    std::atomic<int> interrupted;  // reads that ended with EINTR and were issued again
};

// A process with `count` threads on one CPU, each reading one message from its own open file.
class Readers {
public:
    Readers(const std::string& path, int count, int cpu)
        : shared_(static_cast<Shared*>(mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_ANONYMOUS, -1, 0))),
          child_(Child::As{0, cpu},
                 [=, this](std::string& text) { return run(path, count, text); }) {}
    ~Readers() { munmap(shared_, sizeof(Shared)); }

    int reading() const { return shared_->reading.load(); }
    int interrupted() const { return shared_->interrupted.load(); }
    Child& child() { return child_; }

private:
    struct Work {
        const std::string* path;
        Shared* shared;
        std::mutex* mutex;
        std::string* text;
        std::atomic<int>* failed;
    };

    int run(const std::string& path, int count, std::string& text) {
        std::mutex mutex;
        std::atomic<int> failed = 0;
        Work work{&path, shared_, &mutex, &text, &failed};
        pthread_attr_t small;
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, 256 << 10);
        std::vector<pthread_t> threads(static_cast<std::size_t>(count));
        for (auto& thread : threads) {
            if (pthread_create(&thread, &small, &read_one, &work) != 0) return 125;
        }
        for (auto& thread : threads) pthread_join(thread, nullptr);
        return failed.load() != 0 ? 1 : 0;
    }

    static void* read_one(void* argument) {
        const auto& work = *static_cast<Work*>(argument);
        const Fd in = open_file(*work.path, O_RDONLY);
        work.shared->reading.fetch_add(1);
        Read got = read_from(in.get(), 64);
        while (got.result == -EINTR) {
            work.shared->interrupted.fetch_add(1);
            got = read_from(in.get(), 64);
        }
        if (got.result <= 0) work.failed->fetch_add(1);
        const std::scoped_lock hold(*work.mutex);
        *work.text += got.data + "\n";
        return nullptr;
    }

    Shared* shared_;
    Child child_;
};

class Depth : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
    }
    // Does on the readers' CPU what others do there; 0, or the number of the step that failed.
    int life_goes_on(const std::string& name) {
        const std::string root = daemon().mount();
        Child other(Child::As{0, 0}, [=](std::string&) {
            DIR* listing = opendir(root.c_str());
            if (listing == nullptr) return 1;
            int entries = 0;
            while (readdir(listing) != nullptr) ++entries;
            closedir(listing);
            if (entries < 3) return 2;
            if (mkdir((root + "/" + name).c_str(), 0755) != 0) return 3;
            if (chmod((root + "/" + name + "/queue").c_str(), 0600) != 0) return 4;
            const Fd out = open_file(root + "/" + name + "/queue", O_WRONLY);
            if (write_to(out.get(), "hi") != 2) return 5;
            if (slurp(root + "/" + name + "/queue") != "hi") return 6;
            if (rmdir((root + "/" + name).c_str()) != 0) return 7;
            return 0;
        });
        return other.wait().value_or(-1);
    }
    // Writes `count` different messages from CPU 0; 0, or what went wrong.
    int write_all(int count) {
        const std::string path = at("jobs/queue");
        Child writer(Child::As{0, 0}, [=](std::string&) {
            const Fd out = open_file(path, O_WRONLY);
            for (int i = 0; i < count; ++i) {
                const long done = write_to(out.get(), "m" + std::to_string(i));
                if (done == -EAGAIN || done == -EINTR) {
                    poll_one(out.get(), POLLOUT, 1000);
                    --i;
                } else if (done < 0) {
                    return static_cast<int>(-done);
                }
            }
            return 0;
        });
        return writer.wait(60s).value_or(-1);
    }
    void expect_each_got_one(Readers& readers, int count) {
        ASSERT_EQ(readers.child().wait(60s), 0);
        std::multiset<std::string> got;
        std::istringstream lines(readers.child().text());
        for (std::string line; std::getline(lines, line);) got.insert(line);
        EXPECT_EQ(got.size(), static_cast<std::size_t>(count));
        for (int i = 0; i < count; ++i) {
            ASSERT_EQ(got.count("m" + std::to_string(i)), 1U) << "m" << i;
        }
        EXPECT_EQ(depth("jobs"), 0);
    }
};

class SmallDepth : public Depth {
protected:
    Daemon::Options options() const override { return {{"--queue-depth", "32"}, {}, false}; }
};

TEST_F(SmallDepth, DoesNotStopAnybodyOnTheCpuOfAHundredReaders) {
    Readers readers(at("jobs/next"), 100, 0);
    ASSERT_TRUE(wait_until([&] { return readers.reading() == 100; })) << readers.reading();
    ASSERT_TRUE(wait_until([&] { return waiting("jobs") >= 8; })) << waiting("jobs");
    for (int round = 0; round < 3; ++round) {
        ASSERT_EQ(life_goes_on("other" + std::to_string(round)), 0);
    }
    ASSERT_EQ(write_all(100), 0);
    expect_each_got_one(readers, 100);
}

TEST_F(SmallDepth, TakesInterruptsAndDeathOfReadersBeyondIt) {
    {
        Readers readers(at("jobs/next"), 100, 0);
        ASSERT_TRUE(wait_until([&] { return readers.reading() == 100; }));
        readers.child().signal(SIGKILL);
        ASSERT_EQ(readers.child().wait(), 1000 + SIGKILL);
    }
    EXPECT_TRUE(wait_for_waiting("jobs", 0)) << waiting("jobs");
    ASSERT_EQ(send("jobs", "kept"), 0);
    EXPECT_EQ(drain("jobs"), std::vector<std::string>{"kept"});
}

TEST_F(Depth, CarriesThousandsOfReadersOnOneCpuAtTheDefaults) {
    Readers readers(at("jobs/next"), kMany, 0);
    ASSERT_TRUE(wait_until([&] { return waiting("jobs") == kMany; })) << waiting("jobs");
    ASSERT_EQ(life_goes_on("other"), 0);
    ASSERT_EQ(write_all(kMany), 0);
    expect_each_got_one(readers, kMany);
    EXPECT_EQ(readers.interrupted(), 0) << "the rotation has no place below the depth";
}

}  // namespace
}  // namespace ipcfs::test
