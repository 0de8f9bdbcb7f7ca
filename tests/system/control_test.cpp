// The control socket of a real daemon: rights are those of open(2) on its mount, and neither a client
// that means no good nor 10,000 hand-overs leave anything behind.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <grp.h>
#include <iostream>
#include <random>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../common/control_client.hpp"
#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

// Floods its user's allowance of descriptors in flight (the kernel's, RLIMIT_NOFILE a user): nobody
// else's, since other tests run beside this one.
constexpr uid_t kBomber = 1901;

class Control : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure()) return;
        make_channel("jobs");
        char target[4096];
        const ssize_t length = readlink(at("kern/ipc/control").c_str(), target, sizeof target - 1);
        ASSERT_GT(length, 0);
        path_.assign(target, static_cast<std::size_t>(length));
        server_ = daemon().server();
        const char* given = std::getenv("IPCFS_TEST_SEED");
        seed_ = given ? std::strtoull(given, nullptr, 0) : std::random_device{}();
        random_.seed(seed_);
    }
    void TearDown() override {
        if (HasFailure()) std::cerr << "seed " << seed_ << "\n";
        MountedTest::TearDown();
    }

    ControlClient connect() const { return ControlClient(path_); }
    // But for those of the durable store, which opens some in its own time.
    std::size_t daemon_files() {
        const std::string state = daemon().directory() + "/state/";
        std::size_t count = 0;
        std::error_code ignored;
        for (const auto& each : std::filesystem::directory_iterator(
                 "/proc/" + std::to_string(server_) + "/fd", ignored)) {
            const auto target = std::filesystem::read_symlink(each.path(), ignored);
            count += !target.string().starts_with(state);
        }
        return count;
    }
    long charged(const std::string& resource, uid_t uid = 0) {
        for (auto& row : parse_table(slurp(at("kern/ipc/stats/resources")))) {
            if (row["scope"] == "user" && row["id"] == std::to_string(uid) &&
                row["resource"] == resource)
                return number(row["used"]);
        }
        return 0;
    }
    // Payloads and their bytes that stats/mappings lists, in whatever state.
    std::pair<long, long> mapped() {
        std::pair<long, long> sum{0, 0};
        for (auto& row : parse_table(slurp(at("kern/ipc/stats/mappings")))) {
            if (row["object"] == "counter") continue;
            sum.first += number(row["count"]);
            sum.second += number(row["bytes"]);
        }
        return sum;
    }
    std::uint64_t any(std::uint64_t below) { return random_() % below; }

    std::string path_;
    pid_t server_ = -1;
    std::uint64_t seed_ = 0;
    std::mt19937_64 random_;
};

TEST_F(Control, IsFoundThroughTheTreeByAnybody) {
    Child user(Child::As{kAlice, -1}, [this](std::string& text) {
        ControlClient client = connect();
        ControlClient::Reply reply;
        const int error = client.request(ControlOp::kHello, ControlHello{}, {}, {}, &reply);
        text = reply.body.substr(sizeof(ControlWelcome));
        return error;
    });
    EXPECT_EQ(user.wait(), 0);
    EXPECT_EQ(user.text(), daemon().mount());
}

// ---- rights -------------------------------------------------------------------------------------

struct Who {
    uid_t uid;
    gid_t gid;
    std::vector<gid_t> groups;
};

int become(const Who& who) {
    return setgroups(who.groups.size(), who.groups.data()) != 0 ||
                   setresgid(who.gid, who.gid, who.gid) != 0 ||
                   setresuid(who.uid, who.uid, who.uid) != 0
               ? errno
               : 0;
}

// The bytes of an access ACL as posix_acl_xattr.h has them.
std::string acl_bytes(mode_t mode, const std::vector<std::array<unsigned, 3>>& named,
                      unsigned mask) {
    std::string bytes("\2\0\0\0", 4);
    const auto entry = [&](unsigned tag, unsigned permissions, unsigned id) {
        for (unsigned value : {tag, permissions}) {
            bytes += static_cast<char>(value & 255);
            bytes += static_cast<char>(value >> 8);
        }
        for (int shift = 0; shift < 32; shift += 8) bytes += static_cast<char>(id >> shift & 255);
    };
    constexpr unsigned kNone = 0xffffffff;
    entry(1, mode >> 6 & 7, kNone);
    for (auto& [tag, permissions, id] : named)
        if (tag == 2) entry(tag, permissions, id);
    entry(4, mode >> 3 & 7, kNone);
    for (auto& [tag, permissions, id] : named)
        if (tag == 8) entry(tag, permissions, id);
    entry(16, mask, kNone);
    entry(32, mode & 7, kNone);
    return bytes;
}

TEST_F(Control, RefusesWhatOpenWouldRefuse) {
    make_channel("jobs/inner");
    // A payload to ask for: the message stays queued.
    const Fd shown = memory_of("shown");
    ControlClient root = connect();
    ControlClient::Reply reply;
    ASSERT_EQ(root.send_memory("jobs/inner", shown.get(), &reply), 0) << reply.body;
    const std::uint64_t payload = reply.as<ControlSent>().payload_id;
    const std::string inner = at("jobs/inner");
    const std::vector<std::string> files = {at("jobs"), inner, inner + "/queue", inner + "/notify"};
    constexpr unsigned kIds = 3;  // few, so that they meet
    const auto id = [&] { return static_cast<unsigned>(kAlice + any(kIds)); };

    int refused = 0, allowed = 0;
    for (int round = 0; round < 60; ++round) {
        for (const std::string& file : files) {
            // Directories that nobody may search would make every round the same.
            const bool directory =
                file.find('/', file.size() - 6) == std::string::npos || file == inner;
            const auto mode = static_cast<mode_t>(any(01000)) | (directory && any(3) ? 0111u : 0u);
            ASSERT_EQ(chown(file.c_str(), id(), id()), 0);
            removexattr(file.c_str(), "system.posix_acl_access");
            if (any(2)) {
                std::vector<std::array<unsigned, 3>> named;
                for (unsigned each = 0; each < kIds; ++each) {
                    if (any(3) == 0) named.push_back({2, unsigned(any(8)), kAlice + each});
                    if (any(3) == 0) named.push_back({8, unsigned(any(8)), kAlice + each});
                }
                const std::string acl = acl_bytes(mode, named, unsigned(any(8)));
                ASSERT_EQ(
                    setxattr(file.c_str(), "system.posix_acl_access", acl.data(), acl.size(), 0), 0)
                    << strerror(errno);
            } else {
                ASSERT_EQ(chmod(file.c_str(), mode), 0);
            }
        }
        Who who{id(), id(), {}};
        for (std::uint64_t more = any(3); more > 0; --more) who.groups.push_back(id());
        const std::string shown_file = inner + "/payload/" + std::to_string(payload);
        // Leaves a letter for each request that open(2) would have decided otherwise, and how many
        // were allowed; each is made before and after.
        Child user([&](std::string& text) {
            if (int error = become(who)) return error;
            ControlClient client = connect();
            int ours = 0;
            const auto compare = [&](char letter, int answer, const std::string& file, int flags) {
                const int expected = open_error(file, flags | O_NONBLOCK);
                const bool same =
                    (answer == EACCES) == (expected == EACCES) && (answer == 0 || answer == EACCES);
                if (!same) {
                    text += letter + (" " + std::to_string(answer)) + "/" +
                            std::to_string(expected) + " ";
                }
                if (answer == 0) ++ours;
            };
            const Fd memory = memory_of("message");
            compare('s', client.send_memory("jobs/inner", memory.get()), inner + "/queue",
                    O_WRONLY);
            ControlSend lazy;
            lazy.path_length = 10;
            lazy.size = 4096;
            compare('l', client.request(ControlOp::kLazyOffer, lazy, {"jobs/inner"}),
                    inner + "/queue", O_WRONLY);
            const Fd counter(eventfd(0, EFD_CLOEXEC));
            ControlWatch watch;
            watch.path_length = 10;
            compare('e',
                    client.request(ControlOp::kEventFd, watch, {"jobs/inner"}, {counter.get()}),
                    inner + "/notify", O_RDONLY);
            watch.signal = SIGUSR1;
            compare('g', client.request(ControlOp::kSignal, watch, {"jobs/inner"}),
                    inner + "/notify", O_WRONLY);
            compare('p', client.request(ControlOp::kPayloadFd, ControlId{payload}), shown_file,
                    O_RDONLY);
            text += "=" + std::to_string(ours);
            return 0;
        });
        ASSERT_EQ(user.wait(), 0) << "round " << round << ": " << user.text();
        const auto equals = user.text().find('=');
        EXPECT_EQ(user.text().substr(0, equals), "") << "round " << round << ", uid " << who.uid;
        const int ours = std::atoi(user.text().c_str() + equals + 1);
        allowed += ours;
        refused += 5 - ours;
    }
    EXPECT_GT(allowed, 20);
    EXPECT_GT(refused, 20);
    chmod(at("jobs").c_str(), 0777);
}

TEST_F(Control, ChargesTheSenderUntilItsPayloadIsGone) {
    Child user(Child::As{kAlice, -1}, [this](std::string&) {
        ControlClient client = connect();
        const Fd memory = memory_of(std::string(1 << 20, 'x'));
        return client.send_memory("jobs", memory.get());
    });
    EXPECT_EQ(user.wait(), 0);
    EXPECT_EQ(charged("payload_bytes", kAlice), 1 << 20);
    ASSERT_EQ(ctl("jobs", "purge\n"), 0);
    EXPECT_TRUE(wait_until([&] { return charged("payload_bytes", kAlice) == 0; }));
}

// ---- what is no request -------------------------------------------------------------------------

TEST_F(Control, SurvivesRandomPackets) {
    const std::size_t before = daemon_files();
    ControlClient other = connect();
    int answered = 0;
    for (int round = 0; round < 200; ++round) {
        ControlClient client = connect();
        ASSERT_TRUE(client);
        const Fd memory = memory_of("x");
        int expected = 0;
        for (std::uint64_t packets = 1 + any(30); packets > 0; --packets) {
            std::string bytes(1 + any(300), '\0');
            for (char& each : bytes) each = static_cast<char>(any(4) ? 0 : random_());
            ControlHeader header;
            header.op = static_cast<std::uint16_t>(1 + any(15));
            header.tag = static_cast<std::uint32_t>(random_());
            if (any(4)) std::memcpy(bytes.data(), &header, std::min(bytes.size(), sizeof header));
            std::vector<int> fds(any(3), memory.get());
            if (client.send_bytes(bytes, fds, MSG_DONTWAIT) != 0) break;
            if (header.op != static_cast<std::uint16_t>(ControlOp::kLazyReport)) ++expected;
        }
        // Some read their answers, others leave at once.
        if (any(2)) {
            while (expected-- > 0 && client.receive(50)) ++answered;
        }
    }
    EXPECT_GT(answered, 100);
    EXPECT_TRUE(wait_until([&] { return daemon_files() <= before + 2; })) << daemon_files();
    EXPECT_EQ(other.hello(), 0);
}

TEST_F(Control, SurvivesADescriptorBomb) {
    const std::size_t before = daemon_files();
    const Fd harmless(open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::vector<int> most(253, harmless.get());
    Child bomber(Child::As{kBomber, -1}, [&](std::string& text) {
        int cut = 0;
        for (int round = 0; round < 20; ++round) {
            ControlClient client = connect();
            for (int i = 0; i < 50 && client; ++i) {
                if (client.send_bytes("x", most, MSG_DONTWAIT) != 0) {
                    ++cut;
                    break;
                }
            }
        }
        text = std::to_string(cut);
        return 0;
    });
    ControlClient other = connect();
    for (int i = 0; i < 100; ++i) ASSERT_EQ(other.hello(), 0);
    EXPECT_EQ(bomber.wait(), 0);
    EXPECT_EQ(other.hello(), 0);
    EXPECT_TRUE(wait_until([&] { return daemon_files() <= before + 2; })) << daemon_files();
}

TEST_F(Control, CutsAClientThatDoesNotReadItsReplies) {
    ControlClient slow = connect(), other = connect();
    ASSERT_EQ(slow.hello(), 0);
    ASSERT_EQ(other.hello(), 0);
    const std::size_t before = daemon_files();
    int error = 0;
    for (int i = 0; i < 100'000 && error == 0; ++i) {
        error = slow.send_bytes(ControlClient::packet(ControlOp::kHello, ControlHello{}));
    }
    EXPECT_TRUE(error == EPIPE || error == ECONNRESET) << error;
    EXPECT_EQ(other.hello(), 0);
    EXPECT_TRUE(wait_until([&] { return daemon_files() < before; }));
    EXPECT_NE(daemon().log().find("does not read its replies"), std::string::npos);
}

// ---- memory and what is none --------------------------------------------------------------------

TEST_F(Control, RefusesDescriptorsThatAreNoMemory) {
    ControlClient client = connect();
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    const Fd reading(ends[0]), writing(ends[1]);
    const Fd directory(open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd own_queue(open(at("jobs/queue").c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
    const Fd own_directory(open(at("jobs").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const Fd device(open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int fd : {reading.get(), writing.get(), directory.get(), own_queue.get(),
                   own_directory.get(), device.get(), client.fd()}) {
        ASSERT_GE(fd, 0);
        EXPECT_EQ(client.send_memory("jobs", fd), EPERM);
    }
    EXPECT_EQ(depth("jobs"), 0);
}

TEST_F(Control, SurvivesItsOwnFilesAsDescriptors) {
    ControlClient client = connect();
    ASSERT_EQ(client.hello(), 0);
    const std::size_t before = daemon_files();
    for (int round = 0; round < 200; ++round) {
        const char* file = round % 2 ? "jobs/queue" : "jobs/notify";
        const Fd own(open(at(file).c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
        ASSERT_TRUE(own);
        ASSERT_EQ(client.send_memory("jobs", own.get()), EPERM);
    }
    EXPECT_TRUE(wait_until([&] { return daemon_files() <= before; })) << daemon_files();
    EXPECT_TRUE(wait_until([&] { return charged("open_files") <= 2; })) << charged("open_files");
}

// Of another daemon, which is stopped: closing its file waits for it.
TEST_F(Control, GoesOnWhenAFileSystemDoesNotAnswer) {
    Daemon stopped{Daemon::Options{}};
    ASSERT_TRUE(stopped.running());
    ASSERT_EQ(mkdir((stopped.mount() + "/jobs").c_str(), 0777), 0);
    std::vector<Fd> traps;
    for (int i = 0; i < 4; ++i) {
        traps.push_back(open_file(stopped.mount() + "/jobs/queue", O_RDWR | O_NONBLOCK));
    }
    const pid_t server = stopped.server();
    kill(server, SIGSTOP);
    ControlClient hostile = connect(), other = connect();
    ControlSend what;
    what.path_length = 4;
    for (const Fd& trap : traps) {
        hostile.send_bytes(ControlClient::packet(ControlOp::kSend, what, {"jobs"}), {trap.get()});
    }
    EXPECT_EQ(other.hello(), 0);
    const Fd memory = memory_of("goes through");
    EXPECT_EQ(other.send_memory("jobs", memory.get()), 0);
    kill(server, SIGCONT);
    EXPECT_EQ(drain("jobs").size(), 1u);
    // The closes come through, and whoever was shut out meanwhile may come again.
    EXPECT_TRUE(wait_until([&] { return connect().hello() == 0; }));
}

TEST_F(Control, QueuesWhatItSealedAndNothingThatChangesStill) {
    ControlClient client = connect();
    for (int round = 0; round < 100; ++round) {
        const Fd memory = memory_of(std::string(16384, 'm'), 0);
        // Somebody cuts it shorter while it is handed over.
        Child cutter([&](std::string&) {
            for (off_t size = 16000; size > 100; size -= 100) {
                if (ftruncate(memory.get(), size) != 0) break;
            }
            return 0;
        });
        ControlClient::Reply reply;
        const int error = client.send_memory("jobs", memory.get(), &reply);
        EXPECT_EQ(cutter.wait(), 0);
        ASSERT_EQ(error, 0) << reply.body;
        struct stat st {};
        ASSERT_EQ(fstat(memory.get(), &st), 0);
        EXPECT_EQ(reply.as<ControlSent>().size, static_cast<std::uint64_t>(st.st_size));
        const auto message = drain("jobs");
        ASSERT_EQ(message.size(), 1u);
    }
    const Fd mapped = memory_of(std::string(4096, 'm'), 0);
    void* writable = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mapped.get(), 0);
    EXPECT_EQ(client.send_memory("jobs", mapped.get()), EPERM);
    munmap(writable, 4096);
    const Fd unsealable(memfd_create("test", MFD_CLOEXEC));
    EXPECT_EQ(client.send_memory("jobs", unsealable.get()), EPERM);
    const Fd empty = memory_of("");
    EXPECT_EQ(client.send_memory("jobs", empty.get()), EINVAL);
    ControlSend other_size;
    other_size.size = 5;
    const Fd six = memory_of("sixsix");
    EXPECT_EQ(client.send_memory("jobs", six.get(), nullptr, other_size), EINVAL);
    EXPECT_EQ(depth("jobs"), 0);
}

// ---- nothing is left ----------------------------------------------------------------------------

TEST_F(Control, LeavesNothingOfTenThousandHandOvers) {
    ControlClient client = connect();
    Fd in, framed;
    // The last message that an open file delivered stays with it.
    const auto reopen = [&] {
        in = open_file(at("jobs/queue"), O_RDONLY | O_NONBLOCK);
        framed = open_file(at("jobs/framed/queue"), O_RDONLY | O_NONBLOCK);
    };
    reopen();
    ASSERT_TRUE(in && framed);
    // Once all ways, so that what stays for good is there.
    const auto round = [&](int number) {
        std::string content(8192 + any(4096), '\0');
        std::memcpy(content.data(), &number, sizeof number);
        const Fd memory = memory_of(content, any(8) ? kAllSeals : 0);
        ControlClient::Reply reply;
        ASSERT_EQ(client.send_memory("jobs", memory.get(), &reply), 0) << reply.body;
        const auto id = reply.as<ControlSent>().payload_id;
        switch (any(4)) {
            case 0:
            case 1: {
                const auto got = read_from(in.get());
                ASSERT_EQ(got.result, static_cast<long>(content.size()));
                ASSERT_EQ(std::memcmp(got.data.data(), &number, sizeof number), 0);
                break;
            }
            case 2: {
                const auto got = parse_frame(read_from(framed.get()).data);
                ASSERT_EQ(got.error, FrameError::kNone);
                ASSERT_EQ(got.header.payload_id, id);
                const Fd opened = open_file(at("jobs/payload/" + std::to_string(id)), O_RDONLY);
                ASSERT_TRUE(opened) << strerror(errno);
                ControlClient::Reply memory_of_it;
                ASSERT_EQ(
                    client.request(ControlOp::kPayloadFd, ControlId{id}, {}, {}, &memory_of_it), 0)
                    << memory_of_it.body;
                ASSERT_EQ(memory_of_it.fds.size(), 1u);
                break;
            }
            default: ASSERT_EQ(ctl("jobs", "purge\n"), 0);
        }
    };
    for (int i = 0; i < 50; ++i) round(i);
    reopen();
    ASSERT_TRUE(wait_until([&] { return charged("payload_bytes") == 0; }));
    const std::size_t files = daemon_files();
    const auto before = mapped();
    for (int i = 0; i < 10'000 && !HasFatalFailure(); ++i) round(i);
    reopen();
    EXPECT_TRUE(wait_until([&] { return charged("payload_bytes") == 0; }))
        << charged("payload_bytes");
    EXPECT_TRUE(wait_until([&] { return mapped() == before; })) << mapped().first;
    EXPECT_TRUE(wait_until([&] { return daemon_files() <= files; }))
        << daemon_files() << " after " << files;
    EXPECT_EQ(charged("messages"), 0);
    EXPECT_EQ(charged("bytes"), 0);
}

TEST_F(Control, HasNothingOrAllOfAMessageWhoseSenderIsKilled) {
    const std::size_t before = daemon_files();
    for (int round = 0; round < 60; ++round) {
        Child sender(Child::As{kAlice, -1}, [&](std::string&) {
            ControlClient client = connect();
            for (;;) {
                const Fd memory = memory_of(std::string(8192, 'w'), kAllSeals);
                if (int error = client.send_memory("jobs", memory.get())) return error;
                if (round % 3 == 0) pause();  // after its first one
            }
        });
        if (round % 3 == 0) {
            ASSERT_TRUE(wait_until([&] { return depth("jobs") > 0; }))
                << "round " << round << "; the sender's end: " << sender.wait(0s).value_or(-1);
        } else if (round % 3 == 1) {
            wait_until([&] { return depth("jobs") > static_cast<long>(any(5)); });
        }
        sender.signal(SIGKILL);
        ASSERT_EQ(sender.wait(), 1000 + SIGKILL);
        for (const std::string& message : drain("jobs")) {
            ASSERT_EQ(message, std::string(8192, 'w'));
        }
    }
    EXPECT_TRUE(wait_until([&] { return daemon_files() <= before; })) << daemon_files();
    EXPECT_TRUE(wait_until([&] { return charged("payload_bytes", kAlice) == 0; }));
    EXPECT_TRUE(wait_until([&] { return charged("open_files", kAlice) == 0; }));
}

// ---- events and regions -------------------------------------------------------------------------

TEST_F(Control, SendsTheSignalThatWasAskedFor) {
    ASSERT_EQ(chmod(at("jobs/notify").c_str(), 0666), 0);
    Child watcher(Child::As{kAlice, -1}, [this](std::string&) {
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, SIGRTMIN + 1);
        sigprocmask(SIG_BLOCK, &one, nullptr);
        ControlClient client = connect();
        ControlWatch watch;
        watch.path_length = 4;
        watch.signal = static_cast<std::uint32_t>(SIGRTMIN + 1);
        if (int error = client.request(ControlOp::kSignal, watch, {"jobs"})) return error;
        const Fd out = open_file(at("jobs/queue"), O_WRONLY);
        if (write_to(out.get(), "here") != 4) return 1;
        const timespec patience{20, 0};
        siginfo_t info{};
        return sigtimedwait(&one, &info, &patience) == SIGRTMIN + 1 ? 0 : 2;
    });
    EXPECT_EQ(watcher.wait(), 0);
}

TEST_F(Control, GivesARegionToTheOneWhoReceivedIt) {
    make_channel("target");
    const Fd region(open(at("jobs/share/film").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(region) << strerror(errno);
    ASSERT_EQ(ftruncate(region.get(), 8192), 0);
    ASSERT_EQ(write_to(region.get(), "moves"), 5);
    ControlClient client = connect();
    ControlHandoff handoff;
    handoff.send.path_length = 4;
    handoff.name_length = 4;
    handoff.target_length = 6;
    ControlClient::Reply sent;
    ASSERT_EQ(client.request(ControlOp::kHandoff, handoff, {"jobs", "film", "target"}, {}, &sent),
              0)
        << sent.body;
    const ControlId id{sent.as<ControlSent>().payload_id};
    EXPECT_EQ(client.request(ControlOp::kClaim, id), EPERM) << "nobody has received it";
    const Fd framed = open_file(at("target/framed/queue"), O_RDONLY | O_NONBLOCK);
    const auto got = parse_frame(read_from(framed.get()).data);
    ASSERT_EQ(got.error, FrameError::kNone);
    EXPECT_EQ(got.header.payload_id, id.id);
    Child other([&](std::string&) { return connect().request(ControlOp::kClaim, id); });
    EXPECT_EQ(other.wait(), EPERM);
    ControlClient::Reply claimed;
    ASSERT_EQ(client.request(ControlOp::kClaim, id, {}, {}, &claimed), 0) << claimed.body;
    EXPECT_EQ(claimed.as<ControlId>().id, 8192u);
    ASSERT_EQ(claimed.fds.size(), 1u);
    char text[5];
    ASSERT_EQ(pread(claimed.fds[0].get(), text, 5, 0), 5);
    EXPECT_EQ(std::string_view(text, 5), "moves");
    EXPECT_EQ(client.request(ControlOp::kClaim, id), EPERM) << "once";
    EXPECT_EQ(open_error(at("jobs/share/film"), O_RDONLY), ENOENT);
}

}  // namespace
}  // namespace ipcfs::test
