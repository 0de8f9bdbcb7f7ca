// The daemon dies in the middle of everything: its clients are told, nobody hangs in the kernel.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include "frames.hpp"

namespace ipcfs::test {
namespace {

// Writes until it fails; the errno is its exit code.
Child writing(const std::string& path, bool framed) {
    return Child([=](std::string&) {
        const Fd out = open_file(path, O_WRONLY);
        if (!out) return errno;
        for (;;) {
            const long done = write_to(out.get(), framed ? frame("x") : "x");
            if (done < 0 && done != -EAGAIN) return static_cast<int>(-done);
        }
    });
}

Child reading_on(const std::string& path) {
    return Child([=](std::string&) {
        for (;;) {
            const Fd in = open_file(path, O_RDONLY);
            if (!in) return errno;
            const auto got = read_patiently(in.get());
            if (got.result < 0) return static_cast<int>(-got.result);
        }
    });
}

// Writers hold the inode lock of `queue`, arrivals by other files ring at it: where the doorbell
// waits for that lock, the daemon waits for its own client.
TEST(Death, OfTheDaemonUnderTrafficLeavesNobodyHanging) {
    for (int round = 0; round < 10; ++round) {
        Daemon daemon({});
        ASSERT_TRUE(daemon.running()) << daemon.log();
        const std::string jobs = daemon.mount() + "/jobs/";
        ASSERT_EQ(mkdir(jobs.c_str(), 0777), 0) << strerror(errno);
        std::vector<Child> clients;
        for (int i = 0; i < 3; ++i) clients.push_back(writing(jobs + "queue", false));
        clients.push_back(writing(jobs + "priority/high", false));
        clients.push_back(writing(jobs + "priority/low", false));
        clients.push_back(writing(jobs + "framed/queue", true));
        for (int i = 0; i < 2; ++i) clients.push_back(reading_on(jobs + "queue"));
        for (int i = 0; i < 2; ++i) clients.push_back(reading_on(jobs + "next"));
        ASSERT_TRUE(wait_until([&] {
            const auto rows = parse_table(slurp(jobs + "stats"));
            return !rows.empty() && strtol(rows[0].at("delivered").c_str(), nullptr, 10) > 500;
        }));
        kill(daemon.pid(), SIGKILL);
        ASSERT_TRUE(wait_until([&] { return !daemon.running(); }, 10s)) << "it cannot be killed";
        for (auto& client : clients) {
            const auto code = client.wait(10s);
            ASSERT_TRUE(code.has_value()) << "a client hangs";
            // ECANCELED is what the kernel answers while a dead daemon's rings come down; EINTR, where
            // the daemon got no page any more for a request (docs/architecture.md).
            EXPECT_TRUE(*code == ENOTCONN || *code == ECONNABORTED || *code == ECANCELED ||
                        *code == EINTR)
                << *code;
        }
    }
}

}  // namespace
}  // namespace ipcfs::test
