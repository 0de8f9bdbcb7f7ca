// Topics: what is published reaches every subscriber, named or not, and a slow one costs only itself.
#include <fcntl.h>
#include <poll.h>
#include <set>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"
#include <ipcfs/ipcfs.hpp>

namespace ipcfs::test {
namespace {

constexpr uid_t kReader = 1001;

class Topics : public MountedTest {
protected:
    Daemon::Options options() const override {
        Daemon::Options chosen;
        chosen.config = "[limits.user.1001]\nmessages = 5\n";
        return chosen;
    }
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("news", "type topic\n");
    }
    long subscribers() { return number(status("news", "subscribers")); }
    void subscribe(const std::string& name) {
        ASSERT_EQ(mkdir(at("news/subs/" + name).c_str(), 0777), 0) << strerror(errno);
    }
};

TEST_F(Topics, AllSubscribersGetAllInOneOrder) {
    constexpr int kPublishers = 3, kEach = 100;
    std::vector<Fd> readers;
    for (int i = 0; i < 3; ++i) {
        readers.push_back(open_file(at("news/framed/stream"), O_RDONLY | O_NONBLOCK));
    }
    ASSERT_EQ(subscribers(), 3);
    std::vector<Child> publishers;
    const std::string path = at("news/queue");
    for (int p = 0; p < kPublishers; ++p) {
        publishers.emplace_back([path, p](std::string&) {
            const Fd out = open_file(path, O_WRONLY);
            for (int i = 0; i < kEach; ++i) {
                const std::string text = std::to_string(p) + ":" + std::to_string(i);
                if (write_to(out.get(), text) != static_cast<long>(text.size())) return 1;
            }
            return 0;
        });
    }
    for (Child& publisher : publishers) EXPECT_EQ(publisher.wait(), 0);
    std::vector<std::string> first;
    for (const Fd& reader : readers) {
        std::vector<std::string> got;
        std::uint64_t sequence = 0;
        for (Read read = read_from(reader.get()); read.result > 0; read = read_from(reader.get())) {
            const Received frame = parse_frame(read.data);
            ASSERT_EQ(frame.error, FrameError::kNone);
            EXPECT_GT(frame.header.sequence, sequence);
            sequence = frame.header.sequence;
            got.push_back(frame.body);
        }
        EXPECT_EQ(got.size(), static_cast<std::size_t>(kPublishers * kEach));
        if (first.empty()) first = got;
        EXPECT_EQ(got, first);
    }
}

TEST_F(Topics, AThousandFollowersOfWhichOneNeverReads) {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    ASSERT_EQ(ctl("news", "capacity 10\n"), 0);
    std::vector<Fd> readers;
    for (int i = 0; i < 1000; ++i) {
        readers.push_back(open_file(at("news/stream"), O_RDONLY | O_NONBLOCK));
        ASSERT_TRUE(readers.back()) << strerror(errno);
    }
    for (int n = 0; n < 20; ++n) {
        const std::string text = std::to_string(n);
        ASSERT_EQ(send("news", text), 0);
        for (std::size_t i = 1; i < readers.size(); ++i) {
            ASSERT_EQ(read_from(readers[i].get()).data, text) << i;
        }
    }
    readers.erase(readers.begin() + 1, readers.end());
    std::string last;
    for (Read read = read_from(readers[0].get()); read.result > 0;
         read = read_from(readers[0].get()))
        last = read.data;
    EXPECT_EQ(last, "19") << "the oldest were dropped, not the newest";
    ASSERT_TRUE(wait_until([&] { return subscribers() == 1; }));
}

TEST_F(Topics, AFollowerThatIsKilledIsGone) {
    const std::string path = at("news/stream");
    Child follower([path](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        (void)read_from(in.get());
        return 0;
    });
    ASSERT_TRUE(wait_until([&] { return subscribers() == 1; }));
    follower.signal(SIGKILL);
    EXPECT_EQ(follower.wait(), 1000 + SIGKILL);
    EXPECT_TRUE(wait_until([&] { return subscribers() == 0; }));
    EXPECT_EQ(send("news", "nobody"), 0);
}

TEST_F(Topics, RemovalEndsFollowersButNotNamedSubscriptions) {
    const std::string path = at("news/stream");
    Child follower([path](std::string&) {
        const Fd in = open_file(path, O_RDONLY);
        return static_cast<int>(read_patiently(in.get()).result);
    });
    ASSERT_TRUE(wait_until([&] { return subscribers() == 1; }));
    EXPECT_EQ(ctl("news", "type queue\n"), EBUSY);
    subscribe("alice");
    EXPECT_EQ(rmdir(at("news").c_str()), -1);
    EXPECT_EQ(errno, ENOTEMPTY);
    ASSERT_EQ(rmdir(at("news/subs/alice").c_str()), 0);
    ASSERT_EQ(rmdir(at("news").c_str()), 0) << strerror(errno);
    EXPECT_EQ(follower.wait(), 0);
}

TEST_F(Topics, ANamedSubscriptionIsSharedByWhoReadsIt) {
    subscribe("workers");
    const std::string path = at("news/subs/workers/stream");
    std::vector<Child> readers;
    for (int i = 0; i < 4; ++i) {
        readers.emplace_back([path](std::string& text) {
            const Fd in = open_file(path, O_RDONLY);
            while (true) {
                const Read read = read_patiently(in.get());
                if (read.result <= 0) return static_cast<int>(-read.result);
                if (read.data == "end") return 0;
                text += read.data + " ";
            }
        });
    }
    ASSERT_TRUE(wait_for_waiting("news/subs/workers", 4));
    for (int i = 0; i < 100; ++i) ASSERT_EQ(send("news", std::to_string(i)), 0);
    for (int i = 0; i < 4; ++i) ASSERT_EQ(send("news", "end"), 0);
    std::string all;
    for (Child& reader : readers) {
        EXPECT_EQ(reader.wait(), 0);
        all += reader.text();
    }
    std::multiset<std::string> got;
    for (std::size_t from = 0; from < all.size();) {
        const std::size_t end = all.find(' ', from);
        got.insert(all.substr(from, end - from));
        from = end + 1;
    }
    EXPECT_EQ(got.size(), 100U);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(got.count(std::to_string(i)), 1U) << i;
}

TEST_F(Topics, ABlockingSubscriptionMakesPublishersWait) {
    subscribe("careful");
    ASSERT_EQ(ctl("news/subs/careful", "overflow block\ncapacity 2\nhigh-watermark 100\n"), 0);
    const Fd out = open_file(at("news/queue"), O_WRONLY | O_NONBLOCK);
    EXPECT_EQ(write_to(out.get(), "1"), 1);
    EXPECT_EQ(write_to(out.get(), "2"), 1);
    EXPECT_EQ(write_to(out.get(), "3"), -EAGAIN);
    EXPECT_EQ(poll_one(out.get(), POLLOUT, 0), 0);
    EXPECT_EQ(drain("news/subs/careful").size(), 2U);
    EXPECT_EQ(poll_one(out.get(), POLLOUT, static_cast<int>(kPatience.count())), POLLOUT);
    EXPECT_EQ(write_to(out.get(), "3"), 1);
}

TEST_F(Topics, ASubscriberOverItsLimitLosesAndNobodyElse) {
    ASSERT_EQ(chmod(at("news/subs").c_str(), 0777), 0);
    std::string output;
    ASSERT_EQ(shell("mkdir " + at("news/subs/poor"), &output, kReader), 0) << output;
    subscribe("rich");
    for (int i = 0; i < 8; ++i) ASSERT_EQ(send("news", std::to_string(i)), 0);
    EXPECT_EQ(depth("news/subs/rich"), 8);
    EXPECT_EQ(depth("news/subs/poor"), 5);
    EXPECT_EQ(status("news/subs/poor", "lost"), "3");
}

TEST_F(Topics, APayloadStaysWhileASubscriptionHasIt) {
    subscribe("one");
    subscribe("two");
    const std::string film(1 << 20, 'x');
    {
        const Fd put = open_file(at("news/put"), O_WRONLY);
        ASSERT_EQ(write_to(put.get(), film), static_cast<long>(film.size()));
    }
    const auto payloads = [&] {
        std::string names;
        shell("ls " + at("news/payload"), &names);
        return names;
    };
    const std::string id = payloads();
    ASSERT_FALSE(id.empty());
    EXPECT_EQ(slurp(at("news/subs/one/queue")), film);
    EXPECT_EQ(payloads(), id);
    EXPECT_EQ(slurp(at("news/payload/" + id.substr(0, id.size() - 1))), film);
    EXPECT_EQ(slurp(at("news/subs/two/queue")), film);
    EXPECT_TRUE(wait_until([&] { return payloads().empty(); }));
}

TEST_F(Topics, WhatOnlyOneCanHaveIsNotPublished) {
    auto topic = Channel::open(at("news"));
    ASSERT_TRUE(topic);
    auto region = Region::create(*topic, "frames", 4096);
    ASSERT_TRUE(region);
    auto sent = std::move(*region).hand_off(*topic);
    ASSERT_FALSE(sent);
    EXPECT_EQ(sent.error().code, EINVAL);
    EXPECT_EQ(open_error(at("news/share/frames"), O_RDWR), 0) << "it is where it was";
}

TEST_F(Topics, RightsOfASubscriptionAreItsOwn) {
    subscribe("mine");
    ASSERT_EQ(chmod(at("news/subs/mine/queue").c_str(), 0600), 0);
    EXPECT_NE(shell("cat " + at("news/subs/mine/queue") + " 2>/dev/null", nullptr, kReader), 0);
    EXPECT_EQ(shell("cat " + at("news/subs/mine/status"), nullptr, kReader), 0);
    EXPECT_EQ(open_error(at("news/subs/mine/queue"), O_WRONLY), EACCES);
    EXPECT_EQ(open_error(at("news/queue"), O_RDONLY), EACCES);
    EXPECT_EQ(rename(at("news/subs/mine").c_str(), at("out").c_str()), -1);
    EXPECT_EQ(errno, EXDEV);
    make_channel("other", "type topic\n");
    EXPECT_EQ(rename(at("news/subs/mine").c_str(), at("other/subs/mine").c_str()), -1);
    EXPECT_EQ(errno, EXDEV);
}

TEST_F(Topics, SubscriptionsMoveWithTheirTopic) {
    subscribe("alice");
    ASSERT_EQ(rename(at("news").c_str(), at("old").c_str()), 0);
    ASSERT_EQ(send("old", "hello"), 0);
    EXPECT_EQ(slurp(at("old/subs/alice/queue")), "hello");
}

}  // namespace
}  // namespace ipcfs::test
