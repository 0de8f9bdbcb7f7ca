// Many writers and many readers, by every file, with everything that may change changing: nothing
// is lost, doubled, torn or reordered within a writer.
#include <fcntl.h>
#include <map>
#include <poll.h>
#include <random>
#include <signal.h>
#include <sstream>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

// "writer index length|" and then length bytes that follow from both: a torn one shows.
std::string make_message(int writer, int index, std::size_t length) {
    std::string text =
        std::to_string(writer) + " " + std::to_string(index) + " " + std::to_string(length) + "|";
    for (std::size_t i = 0; i < length; ++i) {
        text += static_cast<char>('a' + (static_cast<std::size_t>(writer + index) + i) % 26);
    }
    return text;
}

// "writer index" of a good message, empty of a bad one.
std::string identify(const std::string& message) {
    int writer = 0;
    int index = 0;
    std::size_t length = 0;
    if (sscanf(message.c_str(), "%d %d %zu|", &writer, &index, &length) != 3) return {};
    if (length > kLargestMessage || message != make_message(writer, index, length)) return {};
    return std::to_string(writer) + " " + std::to_string(index);
}

class Traffic : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        seed_ = std::random_device{}();
        std::cout << "seed " << seed_ << "\n";
    }

    Child writer(int number, int count, std::size_t longest) {
        const std::string directory = at("jobs/");
        const unsigned seed = seed_ + static_cast<unsigned>(number);
        return Child([=](std::string&) {
            std::mt19937 random(seed);
            Fd out;
            bool framed = false;
            for (int i = 0; i < count;) {
                if (!out || random() % 20 == 0) {
                    framed = random() % 3 == 0;
                    const int extra = random() % 2 == 0 ? O_NONBLOCK : 0;
                    out = open_file(directory + (framed ? "framed/queue" : "queue"),
                                    O_WRONLY | extra);
                    if (!out) return errno;
                }
                const std::size_t length = random() % 10 == 0 ? random() % longest : random() % 200;
                const std::string body = make_message(number, i, length);
                const long done = write_to(out.get(), framed ? frame(body) : body);
                if (done == -EAGAIN) {
                    poll_one(out.get(), POLLOUT, 1000);
                } else if (done < 0) {
                    return static_cast<int>(-done);
                } else {
                    ++i;
                }
            }
            return 0;
        });
    }

    // Takes messages until one says "stop"; leaves a line for each: "writer index", or "torn".
    Child reader(int number) {
        const std::string directory = at("jobs/");
        const unsigned seed = seed_ + 1000 + static_cast<unsigned>(number);
        return Child([=](std::string& text) {
            std::mt19937 random(seed);
            const char* const files[] = {"next",        "stream",        "queue",
                                         "framed/next", "framed/stream", "framed/queue"};
            for (;;) {
                const std::string file = files[random() % 6];
                const int extra = random() % 2 == 0 ? O_NONBLOCK : 0;
                const Fd in = open_file(directory + file, O_RDONLY | extra);
                if (!in) return errno;
                for (int turn = 1 + static_cast<int>(random() % 30); turn > 0; --turn) {
                    auto got = read_from(in.get());
                    if (got.result == -EAGAIN) {
                        poll_one(in.get(), POLLIN, 1000);
                        continue;
                    }
                    if (got.result == -EINTR) continue;
                    if (got.result < 0) return static_cast<int>(-got.result);
                    if (got.result == 0) {
                        if (file.ends_with("next")) break;
                        poll_one(in.get(), POLLIN, 1000);
                        continue;
                    }
                    if (file.starts_with("framed")) got.data = parse_frame(got.data).body;
                    if (got.data == "stop") return 0;
                    const auto name = identify(got.data);
                    text += name.empty() ? "torn\n" : name + "\n";
                }
            }
        });
    }

    void run(int writers, int readers, int count, std::size_t longest,
             const std::function<void()>& meanwhile = {}) {
        std::vector<Child> taking;
        std::vector<Child> sending;
        for (int i = 0; i < readers; ++i) taking.push_back(reader(i));
        for (int i = 0; i < writers; ++i) sending.push_back(writer(i, count, longest));
        if (meanwhile) meanwhile();
        for (auto& one : sending) ASSERT_EQ(one.wait(60s), 0) << "seed " << seed_;
        for (int i = 0; i < readers; ++i) ASSERT_EQ(send("jobs", "stop"), 0);
        std::map<int, std::vector<int>> seen;  // writer -> how often each index came
        for (auto& one : taking) {
            ASSERT_EQ(one.wait(60s), 0) << "seed " << seed_;
            std::map<int, int> last;
            std::istringstream lines(one.text());
            for (std::string line; std::getline(lines, line);) {
                int number = 0;
                int index = 0;
                ASSERT_EQ(sscanf(line.c_str(), "%d %d", &number, &index), 2)
                    << line << ", seed " << seed_;
                auto& times = seen[number];
                times.resize(static_cast<std::size_t>(count));
                ++times.at(static_cast<std::size_t>(index));
                const auto before = last.find(number);
                if (before != last.end()) {
                    ASSERT_LT(before->second, index) << "reordered, seed " << seed_;
                }
                last[number] = index;
            }
        }
        for (int i = 0; i < writers; ++i) {
            for (int j = 0; j < count; ++j) {
                ASSERT_EQ(seen[i].at(static_cast<std::size_t>(j)), 1)
                    << "writer " << i << ", message " << j << ", seed " << seed_;
            }
        }
        EXPECT_EQ(depth("jobs"), 0);
    }
    unsigned seed_ = 0;
};

TEST_F(Traffic, OfFourWritersAndFourReadersIsComplete) {
    run(4, 4, 1500, 2000);
}

TEST_F(Traffic, OfLargeMessagesIsComplete) {
    run(3, 3, 60, kLargestMessage - 100);
}

TEST_F(Traffic, ThroughASmallChannelIsComplete) {
    ASSERT_EQ(ctl("jobs", "capacity 10\n"), 0);
    run(8, 8, 150, 2000);
}

TEST_F(Traffic, IsCompleteWhileSettingsChange) {
    run(4, 4, 1000, 2000, [&] {
        std::mt19937 random(seed_);
        const char* const changes[] = {"capacity 20\n",
                                       "capacity 5000\n",
                                       "high-watermark 50\n",
                                       "high-watermark 90\n",
                                       "low-watermark 10\n",
                                       "schedule fair\n",
                                       "schedule strict\n",
                                       "pause 2ms\n",
                                       "pause\n",
                                       "resume\n",
                                       "notify-rate 10/s\n",
                                       "timeout 20ms\n",
                                       "bytes 64K\n",
                                       "bytes 100M\n",
                                       "max-message 4096\n"};
        for (int i = 0; i < 300; ++i) {
            const char* change = changes[random() % std::size(changes)];
            ASSERT_EQ(ctl("jobs", change), 0) << change << ", seed " << seed_;
        }
        ASSERT_EQ(ctl("jobs", "resume\n"), 0);
        ASSERT_EQ(ctl("jobs", "bytes 100M\n"), 0);
        // In use, the type stays.
        const Fd open = open_file(at("jobs/queue"), O_RDONLY);
        EXPECT_EQ(ctl("jobs", "type sync\n"), EBUSY);
    });
}

TEST_F(Traffic, IsCompleteWhileTheChannelMovesAbout) {
    const Fd in = open_file(at("jobs/stream"), O_RDONLY);
    const Fd out = open_file(at("jobs/queue"), O_WRONLY);
    const std::string from = at("jobs");
    const std::string to = at("moved");
    Child mover([=](std::string&) {
        for (;;) {
            if (rename(from.c_str(), to.c_str()) != 0 || rename(to.c_str(), from.c_str()) != 0) {
                return errno;
            }
        }
    });
    for (int i = 0; i < 500; ++i) {
        const std::string text = "m" + std::to_string(i);
        ASSERT_EQ(write_to(out.get(), text), static_cast<long>(text.size()));
        ASSERT_EQ(read_patiently(in.get()).data, text);
    }
    EXPECT_FALSE(mover.wait(0ms).has_value());
}

TEST_F(Traffic, TypeChangesRacingWithUsersEitherHappenOrAreBusy) {
    const std::string control = at("jobs/ctl");
    Child switcher([control](std::string&) {
        for (int i = 0;; ++i) {
            const Fd file = open_file(control, O_WRONLY);
            const long done = write_to(file.get(), i % 2 == 0 ? "type sync\n" : "type queue\n");
            if (done < 0 && done != -EBUSY) return static_cast<int>(-done);
        }
    });
    for (int i = 0; i < 300; ++i) {
        const std::string text = "m" + std::to_string(i);
        const Fd in = open_file(at("jobs/next"), O_RDONLY);
        const Fd out = open_file(at("jobs/queue"), O_WRONLY | O_NONBLOCK);
        ASSERT_TRUE(in && out);
        const long done = write_to(out.get(), text);
        if (done == -EAGAIN) continue;  // sync at the moment, and nobody reads
        ASSERT_EQ(done, static_cast<long>(text.size()));
        ASSERT_EQ(read_patiently(in.get()).data, text);
    }
    EXPECT_FALSE(switcher.wait(0ms).has_value());
}

}  // namespace
}  // namespace ipcfs::test
