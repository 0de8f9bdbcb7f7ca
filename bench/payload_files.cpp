// Group payload: large messages by shell commands: cp into `put`, cat out of `next`, cat of
// payload/<id>; beside a tmpfs, and beside a FUSE server that streams such a memfd and does nothing
// else.
#include <array>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <memory>
#include <spawn.h>
#include <stdexcept>
#include <string>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include "links.hpp"
#include "payload.hpp"
#include "processes.hpp"
#include "servers.hpp"
#include <ipcfs/frame.hpp>

extern char** environ;

namespace ipcfs::bench {
namespace {

constexpr std::size_t kFileSize = kGiB;
constexpr long kTmpfsMagic = 0x01021994;

// A tmpfs with a file of kFileSize random-looking bytes in it. A mount of its own where that is
// allowed, else a folder in /dev/shm.
class Tmpfs {
public:
    explicit Tmpfs(const Run& run) : directory_(run.options().directory + "/tmpfs") {
        must(mkdir(directory_.c_str(), 0700), "mkdir " + directory_);
        mounted_ = mount("tmpfs", directory_.c_str(), "tmpfs", 0, "size=90%,mode=0700") == 0;
        if (!mounted_) {
            rmdir(directory_.c_str());
            directory_ = "/dev/shm/ipcfs-bench-XXXXXX";
            if (mkdtemp(directory_.data()) == nullptr) must(-1, "mkdtemp " + directory_);
        }
        struct statfs about {};
        must(statfs(directory_.c_str(), &about), "statfs " + directory_);
        if (about.f_type != kTmpfsMagic) throw std::runtime_error("no tmpfs can be had");
        fill_file(open_file(at("source"), O_WRONLY | O_CREAT).get());
    }
    Tmpfs(const Tmpfs&) = delete;
    Tmpfs& operator=(const Tmpfs&) = delete;
    ~Tmpfs() {
        if (mounted_) umount2(directory_.c_str(), MNT_DETACH);
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }
    std::string at(const std::string& name) const { return directory_ + "/" + name; }

    static void fill_file(int to) {
        std::vector<std::uint64_t> block(kMiB / 8);
        std::uint64_t state = 88172645463325252U;
        for (auto& word : block) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word = state;
        }
        for (std::size_t done = 0; done < kFileSize; done += kMiB) {
            block[0] = done;
            must(write(to, block.data(), kMiB), "fill a file");
        }
    }

private:
    std::string directory_;
    bool mounted_ = false;
};

// Runs a command to its end; how long it took, in seconds. Its output goes to /dev/null.
double run_command(std::vector<std::string> words) {
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    const std::int64_t from = now_ns();
    errno = posix_spawnp(&pid, argv[0], &files, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&files);
    if (errno != 0) must(-1, "run " + words[0]);
    int status = 0;
    must(waitpid(pid, &status, 0), "wait for " + words[0]);
    const double took = static_cast<double>(now_ns() - from) / 1e9;
    if (status != 0) throw std::runtime_error(words[0] + " " + words[1] + " failed");
    return took;
}

double gigabytes_a_second(double seconds) {
    return static_cast<double>(kFileSize) / 1e9 / seconds;
}

Figures cat(const std::string& path) {
    return {gigabytes_a_second(run_command({"cat", path}))};
}

// `next` again and again; each message has been put there by cp, whose figure comes first.
Figures cp_and_cat(const Server& server, const std::string& source) {
    const double put = run_command({"cp", source, server.at("jobs/put")});
    return {gigabytes_a_second(put), cat(server.at("jobs/next")).at(0)};
}

// A message that stays: taken by an open framed file, which keeps its payload.
class Taken {
public:
    Taken(const Server& server, const std::string& source) {
        run_command({"cp", source, server.at("jobs/put")});
        file_ = open_file(server.at("jobs/framed/next"), O_RDONLY);
        FrameHeader header;
        std::array<std::byte, kMaxFrameHeader> frame;
        must(read(file_.get(), frame.data(), frame.size()), "read a frame");
        std::memcpy(&header, frame.data(), sizeof header);
        if (header.payload_id == 0) throw std::runtime_error("the message has no payload");
        path_ = server.at("jobs/payload/" + std::to_string(header.payload_id));
    }
    const std::string& path() const { return path_; }

private:
    Fd file_;
    std::string path_;
};

std::string null_name(Transport transport) {
    return std::string("null server, ") + name_of(transport);
}

}  // namespace

void measure_files(Run& run) {
    const std::string what = "1 GiB by cp and cat";
    if (!has_memory(run, what, 6 * kFileSize)) return;
    run.progress("payload: " + what);
    const Tmpfs tmpfs(run);
    const std::string source = tmpfs.at("source"), copy = tmpfs.at("copy");
    const Fd stream(static_cast<int>(must(memfd_create("stream", MFD_CLOEXEC), "memfd_create")));
    // New memory each time, as each message is: a first read of a page costs more than a second.
    const auto cat_anew = [&](const std::string& path) {
        must(ftruncate(stream.get(), 0), "ftruncate");
        must(lseek(stream.get(), 0, SEEK_SET), "lseek");
        Tmpfs::fill_file(stream.get());
        return cat(path);
    };
    Tmpfs::fill_file(stream.get());

    std::vector<Round> rounds{
        warmed(kFileSize,
               [&] {
                   const double took = run_command({"cp", source, copy});
                   unlink(copy.c_str());
                   return Figures{gigabytes_a_second(took)};
               }),
        [&] { return cat(source); },
    };
    const Server loop(run, Server::Program::kNullLoop, Transport::kClassic, stream.get());
    rounds.push_back([&] { return cat_anew(loop.at("stream")); });
    std::vector<std::unique_ptr<Server>> servers;
    std::vector<std::unique_ptr<Taken>> taken;
    for (const Transport transport : kTransports) {
        servers.push_back(
            std::make_unique<Server>(run, Server::Program::kNull, transport, stream.get()));
        rounds.push_back([&, at = servers.back()->at("stream")] { return cat_anew(at); });
        servers.push_back(std::make_unique<Server>(run, Server::Program::kIpcfs, transport));
        const Server& ipcfs = *servers.back();
        ipcfs.make_channel("jobs");
        taken.push_back(std::make_unique<Taken>(ipcfs, source));
        rounds.push_back(warmed(kFileSize, [&] { return cp_and_cat(ipcfs, source); }));
        rounds.push_back([path = taken.back()->path()] { return cat(path); });
    }
    const auto figures = interleave(large_rounds(run, 9), rounds);
    taken.clear();  // before the servers

    for (std::size_t i = 0; i < 2; ++i) {
        const std::size_t null = 3 + 3 * i, put = null + 1, file = null + 2;
        const std::string by = std::string(", ") + name_of(kTransports[i]);
        run.add({"cp 1 GiB to put" + by, figures[put][0], "GB/s", "cp to tmpfs", figures[0][0],
                 ratio_at_least(0.7)});
        run.add({"cat next, 1 GiB" + by, figures[put][1], "GB/s", null_name(kTransports[i]),
                 figures[null][0], ratio_at_least(0.95)});
        run.add({"cat next, 1 GiB" + by,
                 figures[put][1],
                 "GB/s",
                 "null server, libfuse's loop, splice",
                 figures[2][0],
                 {}});
        run.add({"cat payload/<id>, 1 GiB" + by, figures[file][0], "GB/s", "cat of tmpfs",
                 figures[1][0], ratio_at_least(0.9)});
    }
}

}  // namespace ipcfs::bench
