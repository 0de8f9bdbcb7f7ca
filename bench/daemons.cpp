// Starting and ending them, and talking to them.
#include "daemons.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <signal.h>
#include <sstream>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>

#include "measure.hpp"
#include "processes.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::int64_t kStartPatience = 20'000'000'000;

std::string find_program(const std::string& name) {
    const char* path = std::getenv("PATH");
    std::istringstream folders(std::string(path ? path : "") + ":/usr/sbin:/sbin:/usr/local/sbin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        std::string file = folder + "/" + name;
        if (!folder.empty() && access(file.c_str(), X_OK) == 0) return file;
    }
    return "";
}

// As many descriptors as it may have: a thousand clients are a thousand.
void raise_file_limit() {
    rlimit files{};
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
}

}  // namespace

bool has_program(const std::string& name) {
    return !find_program(name).empty();
}

std::string make_directory(const Run& run, const std::string& name) {
    std::string path = run.options().directory + "/" + name + "-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) must(-1, "mkdtemp " + path);
    return path;
}

std::string slurp(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_text(const std::string& path, const std::string& text) {
    std::ofstream file(path);
    file << text;
    if (!file.flush()) throw std::runtime_error(path + " cannot be written");
}

Daemon::Daemon(std::string directory, std::vector<std::string> words,
               const std::function<bool()>& ready)
    : directory_(std::move(directory)) {
    const std::string program = find_program(words.at(0));
    if (program.empty()) throw std::runtime_error(words[0] + " is not installed");
    const std::string output = directory_ + "/output";
    pid_ = fork_child([&] {
        run_on(Place::kFree);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        raise_file_limit();
        const Fd out(open(output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
        dup2(out.get(), STDOUT_FILENO);
        dup2(out.get(), STDERR_FILENO);
        must(chdir(directory_.c_str()), "chdir");
        std::vector<char*> argv;
        for (auto& word : words) argv.push_back(word.data());
        argv.push_back(nullptr);
        execv(program.c_str(), argv.data());
        must(-1, "exec " + program);
    });
    for (const auto until = now_ns() + kStartPatience; !ready(); usleep(2000)) {
        const bool ended = wait_for(pid_, 0);
        if (!ended && now_ns() < until) continue;
        if (ended) pid_ = -1;
        throw std::runtime_error(words[0] + " does not serve: " + slurp(output));
    }
}

Daemon::~Daemon() {
    if (pid_ < 0) return;
    kill(pid_, SIGTERM);
    if (wait_for(pid_, 5'000'000'000)) return;
    kill(pid_, SIGKILL);
    wait_for(pid_, kStartPatience);
}

Fd connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) throw std::runtime_error(path + " is too long");
    path.copy(address.sun_path, path.size());
    Fd fd(static_cast<int>(must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return {};
    }
    return fd;
}

Fd connect_loopback(unsigned port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    Fd fd(static_cast<int>(must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")));
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        return {};
    }
    const int on = 1;
    must(setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
    return fd;
}

double cpu_time(pid_t pid) {
    double sum = 0;
    const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
    std::error_code ignored;
    for (const auto& task : std::filesystem::directory_iterator(tasks, ignored)) {
        double ran = 0;
        if (std::ifstream(task.path() / "schedstat") >> ran) sum += ran;
    }
    return sum;
}

void Stream::send(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        bytes.remove_prefix(static_cast<std::size_t>(must(sent, "send")));
    }
}

void Stream::fill() {
    ssize_t got = 0;
    do {
        got = recv(fd_.get(), buffer_.data(), buffer_.size(), 0);
    } while (got < 0 && errno == EINTR);
    if (must(got, "receive") == 0) throw std::runtime_error("a server closed its connection");
    at_ = 0;
    have_ = static_cast<std::size_t>(got);
}

std::string Stream::line() {
    for (std::string line;;) {
        if (at_ == have_) fill();
        const char* from = buffer_.data() + at_;
        const auto* end = static_cast<const char*>(std::memchr(from, '\n', have_ - at_));
        line.append(from, end ? end : buffer_.data() + have_);
        at_ = end ? static_cast<std::size_t>(end + 1 - buffer_.data()) : have_;
        if (!end) continue;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        return line;
    }
}

std::string Stream::bytes(std::size_t count) {
    std::string out;
    while (out.size() < count) {
        if (at_ == have_) fill();
        const std::size_t part = std::min(count - out.size(), have_ - at_);
        out.append(buffer_.data() + at_, part);
        at_ += part;
    }
    return out;
}

}  // namespace ipcfs::bench
