// A FUSE server that does nothing, to measure what the transport alone costs: one file `file` that
// takes every write and answers every read with 64 bytes (or as many as were written last), opened
// as ipcfs opens its message files; and with --stream FD a file `stream`, which is read from that
// descriptor by the cheapest means there is: splice on libfuse's loop, else the Session's. On our Session
// with either transport, or on libfuse's own loop (--libfuse-loop) as the honest baseline for both. Runs
// until SIGINT, SIGTERM or unmount.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string>
#include <string_view>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

using namespace ipcfs;
using namespace ipcfs::fuse;

namespace {

constexpr fuse_ino_t kFile = 2;
constexpr fuse_ino_t kStream = 3;
constexpr double kNever = 86400;
std::atomic<std::size_t> last_size{64};  // the program's only state
int stream_fd = -1;                      // set before anything is served
const std::array<char, 1 << 20> kZeros{};

struct stat attributes(fuse_ino_t node) {
    struct stat info {};
    info.st_ino = node;
    info.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666;
    info.st_nlink = 1;
    struct stat stream {};
    if (node == kStream && fstat(stream_fd, &stream) == 0) info.st_size = stream.st_size;
    return info;
}

// 0: there is none.
fuse_ino_t node_of(std::string_view name) {
    if (name == "file") return kFile;
    return name == "stream" && stream_fd >= 0 ? kStream : 0;
}

std::size_t bytes_of_read(std::size_t size) {
    return std::min({size, last_size.load(std::memory_order_relaxed), kZeros.size()});
}

// ---- on libfuse's loop --------------------------------------------------------------------------

void lookup(fuse_req_t req, fuse_ino_t, const char* name) {
    fuse_entry_param entry{};
    entry.ino = node_of(name);
    if (entry.ino == 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    entry.attr = attributes(entry.ino);
    entry.attr_timeout = entry.entry_timeout = kNever;
    fuse_reply_entry(req, &entry);
}

void get_attributes(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
    const auto info = attributes(node);
    fuse_reply_attr(req, &info, kNever);
}

void set_attributes(fuse_req_t req, fuse_ino_t node, struct stat*, int, fuse_file_info*) {
    get_attributes(req, node, nullptr);
}

void open_file(fuse_req_t req, fuse_ino_t, fuse_file_info* file) {
    file->direct_io = 1;
    file->noflush = 1;
    fuse_reply_open(req, file);
}

void read_file(fuse_req_t req, fuse_ino_t node, std::size_t size, off_t offset, fuse_file_info*) {
    if (node == kStream) {
        fuse_bufvec from = FUSE_BUFVEC_INIT(size);
        from.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
        from.buf[0].fd = stream_fd;
        from.buf[0].pos = offset;
        fuse_reply_data(req, &from, static_cast<fuse_buf_copy_flags>(0));
        return;
    }
    fuse_reply_buf(req, kZeros.data(), bytes_of_read(size));
}

void write_file(fuse_req_t req, fuse_ino_t, const char*, std::size_t size, off_t, fuse_file_info*) {
    last_size.store(size, std::memory_order_relaxed);
    fuse_reply_write(req, size);
}

void begin(void*, fuse_conn_info* connection) noexcept {
    connection->max_write = 1 << 20;
    connection->want &= ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ);
}

fuse_lowlevel_ops operations() {
    fuse_lowlevel_ops ops{};
    ops.init = begin;
    ops.lookup = lookup;
    ops.getattr = get_attributes;
    ops.setattr = set_attributes;
    ops.open = open_file;
    ops.read = read_file;
    ops.write = write_file;
    return ops;
}

// ---- on our Session -----------------------------------------------------------------------------

fuse_attr kernel_attributes(fuse_ino_t node) {
    const auto info = attributes(node);
    fuse_attr answer{};
    answer.ino = node;
    answer.mode = info.st_mode;
    answer.nlink = 1;
    answer.size = static_cast<std::uint64_t>(info.st_size);
    return answer;
}

void reply_attributes(Request& request) noexcept {
    fuse_attr_out out{};
    out.attr_valid = static_cast<std::uint64_t>(kNever);
    out.attr = kernel_attributes(request.header().nodeid);
    request.reply(out);
}

FileSystem file_system() {
    FileSystem system;
    system.init = [](fuse_conn_info* connection) noexcept { begin(nullptr, connection); };
    auto& at = system.handlers;
    at[FUSE_LOOKUP] = [](Request& request) noexcept {
        fuse_entry_out entry{};
        entry.nodeid = node_of(request.name());
        if (entry.nodeid == 0) {
            request.fail(ENOENT);
            return;
        }
        entry.attr = kernel_attributes(entry.nodeid);
        entry.attr_valid = entry.entry_valid = static_cast<std::uint64_t>(kNever);
        request.reply(entry);
    };
    at[FUSE_GETATTR] = at[FUSE_SETATTR] = reply_attributes;
    at[FUSE_STATFS] = [](Request& request) noexcept { request.reply(fuse_statfs_out{}); };
    at[FUSE_OPEN] = [](Request& request) noexcept {
        request.reply(fuse_open_out{0, FOPEN_DIRECT_IO | FOPEN_NOFLUSH, 0});
    };
    at[FUSE_RELEASE] = [](Request& request) noexcept { request.fail(0); };
    at[FUSE_READ] = [](Request& request) noexcept {
        const auto in = request.in<fuse_read_in>();
        if (request.header().nodeid == kStream) {
            request.reply_file({stream_fd, in.offset, in.size});
        } else {
            request.reply_text({kZeros.data(), bytes_of_read(in.size)});
        }
    };
    at[FUSE_WRITE] = [](Request& request) noexcept {
        const auto in = request.in<fuse_write_in>();
        last_size.store(in.size, std::memory_order_relaxed);
        request.reply(fuse_write_out{in.size, 0});
    };
    return system;
}

struct Options {
    std::string mount;
    std::string transport = "classic";
    unsigned threads = 0;
    unsigned depth = 8192;
    bool libfuse_loop = false;
};

[[noreturn]] void usage() {
    std::fputs(
        "usage: null_fuse --mount DIR [--transport classic|uring] [--threads N] [--depth N]\n"
        "                 [--libfuse-loop] [--stream FD]\n",
        stderr);
    std::exit(2);
}

Options parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        const auto value = [&]() -> std::string {
            if (i + 1 >= argc) usage();
            return argv[++i];
        };
        if (word == "--mount")
            options.mount = value();
        else if (word == "--transport")
            options.transport = value();
        else if (word == "--threads")
            options.threads = static_cast<unsigned>(std::atoi(value().c_str()));
        else if (word == "--depth")
            options.depth = static_cast<unsigned>(std::atoi(value().c_str()));
        else if (word == "--stream")
            stream_fd = std::atoi(value().c_str());
        else if (word == "--libfuse-loop")
            options.libfuse_loop = true;
        else
            usage();
    }
    if (options.mount.empty() || (options.transport != "classic" && options.transport != "uring"))
        usage();
    return options;
}

int run_libfuse_loop(const Options& options) {
    std::string words[] = {"null_fuse", "-o", "default_permissions,max_read=1048576"};
    char* argv[] = {words[0].data(), words[1].data(), words[2].data()};
    fuse_args args = FUSE_ARGS_INIT(3, argv);
    auto ops = operations();
    ops.init = [](void* user, fuse_conn_info* connection) {
        begin(user, connection);
        connection->max_read = 1 << 20;  // must repeat the mount option
        connection->want |= connection->capable & static_cast<unsigned>(FUSE_CAP_SPLICE_WRITE);
    };
    fuse_session* session = fuse_session_new(&args, &ops, sizeof ops, nullptr);
    if (!session || fuse_set_signal_handlers(session) != 0 ||
        fuse_session_mount(session, options.mount.c_str()) != 0)
        return 1;
    fuse_loop_config* config = fuse_loop_cfg_create();
    if (options.threads) fuse_loop_cfg_set_max_threads(config, options.threads);
    std::printf("ready transport=libfuse-loop libfuse=%s\n", fuse_pkgversion());
    std::fflush(stdout);
    fuse_session_loop_mt(session, config);
    fuse_loop_cfg_destroy(config);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return 0;
}

int run_session(const Options& options) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    const Fd told(signalfd(-1, &signals, SFD_CLOEXEC));
    const Fd over(eventfd(0, EFD_CLOEXEC));

    SessionConfig config;
    config.mountpoint = options.mount;
    config.transport = options.transport == "uring" ? Transport::kUring : Transport::kClassic;
    config.reader_threads = options.threads;
    config.ring_depth = options.depth;
    config.on_end = [&over](const std::string&) { eventfd_write(over.get(), 1); };
    const FileSystem system = file_system();
    auto session = Session::open(std::move(config), system, nullptr);
    if (!session) {
        std::fprintf(stderr, "null_fuse: %s\n", session.error().message().c_str());
        return 1;
    }
    if (const auto started = (*session)->start(); !started) {
        std::fprintf(stderr, "null_fuse: %s\n", started.error().message().c_str());
        return 1;
    }
    const auto& report = (*session)->report();
    const bool uring = report.transport == Transport::kUring;
    std::printf("ready transport=%s queues=%u depth=%u readers=%u libfuse=%s %s\n",
                uring ? "uring" : "classic", report.queues, report.depth, report.readers,
                report.libfuse_version.c_str(), report.why_not_uring.c_str());
    std::fflush(stdout);
    pollfd waits[] = {{told.get(), POLLIN, 0}, {over.get(), POLLIN, 0}};
    while (::poll(waits, 2, -1) < 0 && errno == EINTR) {
    }
    (*session)->stop();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const Options options = parse(argc, argv);
    return options.libfuse_loop ? run_libfuse_loop(options) : run_session(options);
}
