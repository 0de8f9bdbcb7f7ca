// Says why these tests cannot run here (exit 77, which CTest calls skipped), or puts the program in
// a mount namespace of its own and runs them.
#include <cstdio>
#include <cstdlib>
#include <sched.h>
#include <signal.h>
#include <string>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "daemon_fixture.hpp"
#include "files.hpp"

namespace {

constexpr int kSkipped = 77;

// What is missing here for these tests, or an empty text.
std::string missing() {
    if (geteuid() != 0) return "these tests mount and change users: they need root";
    const char* daemon = getenv("IPCFS_TEST_DAEMON");
    if (daemon == nullptr) return "IPCFS_TEST_DAEMON does not name the daemon";
    if (access("/dev/fuse", R_OK | W_OK) != 0) return "there is no usable /dev/fuse";
    const char* transport = getenv("IPCFS_TEST_TRANSPORT");
    if (transport == nullptr || std::string(transport) != "uring") return {};
    const auto enabled = ipcfs::test::slurp("/sys/module/fuse/parameters/enable_uring");
    if (!enabled.starts_with("Y")) return "the kernel's fuse.enable_uring is not Y";
    return {};
}

// Why the daemon, asked for io_uring, does without (its libfuse may not know how), or empty.
std::string fell_back() {
    const char* transport = getenv("IPCFS_TEST_TRANSPORT");
    if (transport == nullptr || std::string(transport) != "uring") return {};
    ipcfs::test::Daemon probe({});
    if (!probe.running()) return {};  // the tests will say
    const auto version = ipcfs::test::slurp(probe.mount() + "/kern/ipc/version");
    if (ipcfs::test::value_of(version, "transport") != "classic") return {};
    return "the daemon does without io_uring:\n" + version;
}

}  // namespace

int main(int argc, char** argv) {
    testing::InitGoogleTest(&argc, argv);
    if (testing::GTEST_FLAG(list_tests)) return RUN_ALL_TESTS();
    auto reason = missing();
    if (!reason.empty()) {
        std::printf("skipped: %s\n", reason.c_str());
        return kSkipped;
    }
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
        std::printf("skipped: no mount namespace of our own\n");
        return kSkipped;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(0);  // a channel has exactly the mode a test asks for
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    reason = fell_back();
    if (!reason.empty()) {
        std::printf("skipped: %s\n", reason.c_str());
        return kSkipped;
    }
    return RUN_ALL_TESTS();
}
