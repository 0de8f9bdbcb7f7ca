#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <fuse/buffer.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::chrono::milliseconds kNotifyPatience{300};

// Gets a reader out of read(2) at the end; its handler does nothing.
int wake_signal() {
    return SIGRTMIN + 11;
}

void install_wake_signal() {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    ::sigaction(wake_signal(), &action, nullptr);  // without SA_RESTART
}

// Threads started within take no signal but the wake signal: the others are main's.
class QuietThreads {
public:
    QuietThreads() {
        sigset_t quiet;
        ::sigfillset(&quiet);
        for (const int own : {wake_signal(), SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP})
            ::sigdelset(&quiet, own);
        ::pthread_sigmask(SIG_SETMASK, &quiet, &before_);
    }
    ~QuietThreads() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_{};
};

}  // namespace

Result<std::unique_ptr<Session>> Session::open(SessionConfig config, const FileSystem& system,
                                               void* user) {
    std::unique_ptr<Session> session(new Session(std::move(config), system, user));
    if (auto attached = session->attach(); !attached) return attached.error();
    return session;
}

Result<void> Session::attach() {
    fuse_lowlevel_ops ops{};
    ops.init = &Session::on_init;
    report_.libfuse_version = ::fuse_pkgversion();

    std::vector<std::string> words = {"ipcfs"};
    if (config_.debug) words.push_back("-d");
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    fuse_args args = FUSE_ARGS_INIT(static_cast<int>(argv.size()), argv.data());
    session_ = fuse_session_new(&args, &ops, sizeof ops, this);
    ::fuse_opt_free_args(&args);
    if (!session_) return Fault{EINVAL, "create a libfuse session"};

    auto mount = config_.mount
                     ? config_.mount->share()
                     : Mount::make({config_.mountpoint, config_.allow_other, config_.max_write});
    if (!mount) return mount.error();
    mount_ = std::move(*mount);
    report_.allow_other = mount_.allow_other();

    // libfuse closes the descriptor that it is given.
    const int theirs = ::fcntl(mount_.device().get(), F_DUPFD_CLOEXEC, 3);
    if (theirs < 0) return errno_fault("duplicate /dev/fuse");
    fuse_custom_io io{};
    io.writev = &Session::on_writev;
    io.read = [](int fd, void* buffer, std::size_t size, void*) {
        return ::read(fd, buffer, size);
    };
    report_.custom_io = ::fuse_session_custom_io(session_, &io, theirs) == 0;
    if (!report_.custom_io) {
        const std::string path = "/dev/fd/" + std::to_string(theirs);
        if (::fuse_session_mount(session_, path.c_str()) != 0)
            return Fault{EINVAL, "give /dev/fuse to libfuse"};
    }
    return {};
}

Session::~Session() {
    stop();
    if (session_) ::fuse_session_destroy(session_);
}

void Session::on_init(void* self, fuse_conn_info* connection) noexcept {
    auto& session = *static_cast<Session*>(self);
    const auto max_write = static_cast<unsigned>(session.config_.max_write);
    connection->max_write = max_write;
    if (session.system_.init) session.system_.init(connection);
    connection->max_write = std::min(connection->max_write, max_write);
    // Requests must lie in memory.
    connection->want &=
        ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

// Where libfuse's answer to INIT and its notifications come out. Any thread.
ssize_t Session::on_writev(int, iovec* iov, int count, void* self) noexcept {
    auto& session = *static_cast<Session*>(self);
    const auto out = read_struct<fuse_out_header>(iov[0].iov_base);
    if (out.unique != 0 && out.unique == session.init_unique_)
        return session.write_init_reply(iov, count);
    return ::writev(session.mount_.device().get(), iov, count);
}

void Session::dispatch(Request& request, OpcodeCounts& counts) noexcept {
    const std::uint32_t opcode = request.header().opcode;
    counts.count(opcode);
    if (config_.debug) {
        const fuse_in_header& in = request.header();
        std::fprintf(stderr, "unique %" PRIu64 " opcode %u node %" PRIu64 " bytes %u pid %u\n",
                     in.unique, opcode, in.nodeid, in.len, in.pid);
    }
    if (has_no_reply(opcode)) return;
    const Handler handler = opcode < FileSystem::kOpcodes ? system_.handlers[opcode] : nullptr;
    if (handler) {
        handler(request);
        IPCFS_CHECK(!request.is_open());  // neither answered nor parked
    } else {
        const bool is_done = opcode == FUSE_RELEASEDIR || opcode == FUSE_DESTROY;
        request.fail(is_done ? 0 : ENOSYS);
    }
}

bool Session::send(RingEntry* entry, const iovec* parts, int count) noexcept {
    if (entry) return entry->queue->reply(*entry, parts, count) >= 0;
    return ::writev(mount_.device().get(), parts, count) >= 0;
}

bool Session::send(RingEntry* entry, const fuse_out_header& header,
                   const FileBytes& bytes) noexcept {
    if (entry) return entry->queue->reply(*entry, header, bytes) >= 0;
    return send_bytes(mount_.device().get(), header, bytes) >= 0;
}

bool Session::notify_raw(Notification code, const void* body, std::size_t size) noexcept {
    fuse_out_header header{static_cast<std::uint32_t>(sizeof header + size),
                           static_cast<std::int32_t>(code), 0};
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), size}};
    return ::writev(mount_.device().get(), parts, size ? 2 : 1) >= 0;
}

Result<void> Session::start() {
    install_wake_signal();
    QuietThreads quiet;
    if (auto answered = answer_init(); !answered) return answered;
    if (!report_.survives && report_.why_not_survives.empty())
        report_.why_not_survives = cannot_survive();
    const bool uring = !rings_.empty();
    report_.transport = uring ? Transport::kUring : Transport::kClassic;
    report_.readers = config_.reader_threads;
    if (report_.readers == 0) report_.readers = std::max(2U, std::thread::hardware_concurrency());
    if (uring) report_.readers = 1;
    report_.why_not_passthrough = try_passthrough();
    report_.passthrough = report_.why_not_passthrough.empty();
    // Handlers may ask for the report and the counts: nothing changes from the first request on.
    for (unsigned i = 0; i < report_.readers; ++i) readers_.push_back(std::make_unique<Reader>());

    if (replaying_) {
        if (!report_.survives) return Fault{EPROTO, "take over: " + report_.why_not_survives};
        if (auto taken = take_over(); !taken) return taken;
    }
    if (config_.inheritance) config_.inheritance->say_serving();
    for (auto& ring : rings_) ring->let_register();
    for (auto& ring : rings_)
        if (auto registered = ring->await_registered(); !registered) return registered;
    return start_readers();
}

void Session::ended(const std::string& reason) noexcept {
    ::fuse_session_exit(session_);
    if (stopping_.load() || end_told_.exchange(true)) return;
    if (config_.on_end) config_.on_end(reason);
}

void Session::stop() noexcept {
    std::scoped_lock hold(stop_mutex_);
    if (std::exchange(stopped_, true)) return;
    stopping_.store(true);
    {
        std::scoped_lock gate(gate_.mutex);
        gate_.closed = true;
    }
    if (session_) ::fuse_session_exit(session_);
    // One that could not take over: the holder may have another try.
    if (config_.inheritance && !config_.inheritance->ending()) mount_.leave();
    mount_.unmount();
    // Without privilege that aborted nothing: these replies are what frees the clients.
    for (const auto& op : parked_.operations()) op->interrupt(ENOTCONN);
    for (auto& ring : rings_) ring->stop();
    // A reader may be between its look at `stopping_` and the read: signal until it is through.
    for (auto& reader : readers_)
        while (reader->thread.joinable() && !reader->done.load()) {
            ::pthread_kill(reader->thread.native_handle(), wake_signal());
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    for (auto& reader : readers_)
        if (reader->thread.joinable()) reader->thread.join();
    for (auto& ring : rings_) ring->join();
    for (const auto& op : parked_.operations()) op->interrupt(ENOTCONN);  // parked meanwhile
    std::unique_lock gate(gate_.mutex);
    gate_.empty.wait_for(gate, kNotifyPatience, [this] { return gate_.inside == 0; });
}

bool Session::park(std::shared_ptr<Parked> op, ParkRank rank, Request& request) {
    IPCFS_CHECK(request.is_open() && !request.is_parked_);
    RingEntry* const entry = request.entry_;
    request.is_parked_ = true;
    pid_t tid = 0;
    if (entry) {
        tid = static_cast<pid_t>(request.header_.pid);
        entry->queue->park(*entry, request.unique(), rank);
    }
    // From add() on, another thread may complete the operation and answer.
    if (parked_.add(request.unique(), std::move(op), tid)) return true;
    request.is_parked_ = false;
    if (entry) entry->queue->unpark(*entry);
    return false;
}

std::size_t Session::end_unheard() {
    const auto lost = parked_.unheard();
    for (const auto& op : lost) op->interrupt(EINTR);
    return lost.size();
}

void Session::unpark(Request& request) noexcept {
    if (request.entry_) request.entry_->queue->unpark(*request.entry_);
    parked_.remove(request.unique());
}

template <class Notify>
Result<void> Session::notify(const char* what, Notify&& send) {
    {
        std::scoped_lock gate(gate_.mutex);
        if (gate_.closed) return Fault{ENOTCONN, what};
        ++gate_.inside;
    }
    const int result = send();
    {
        std::scoped_lock gate(gate_.mutex);
        if (--gate_.inside == 0) gate_.empty.notify_all();
    }
    if (result < 0 && result != -ENOENT) return Fault{-result, what};
    return {};
}

Result<void> Session::notify_inval_inode(fuse_ino_t node, off_t offset, off_t length) {
    return notify("invalidate an inode", [&] {
        return ::fuse_lowlevel_notify_inval_inode(session_, node, offset, length);
    });
}

void Session::notify_poll(std::uint64_t handle) noexcept {
    (void)notify("wake a poller", [&] {
        return notify_raw(Notification::kPoll, &handle, sizeof handle) ? 0 : -errno;
    });
}

Result<std::int32_t> Session::open_backing(int file) noexcept {
    BackingMap map{file, 0, 0};
    const int id = ::ioctl(mount_.device().get(), kBackingOpen, &map);
    if (id < 0) return errno_fault("make a file the backing of a FUSE file");
    return Result<std::int32_t>(boost::system::in_place_value, id);  // Fault takes a number, too
}

void Session::close_backing(std::int32_t id) noexcept {
    auto number = static_cast<std::uint32_t>(id);
    ::ioctl(mount_.device().get(), kBackingClose, &number);
}

RequestCounts Session::requests() const noexcept {
    RequestCounts sum{};
    init_counts_.add_to(sum);
    for (const auto& counts : ring_counts_) counts->add_to(sum);
    for (const auto& reader : readers_) reader->counts.add_to(sum);
    return sum;
}

Overload Session::overload() const {
    Overload sum;
    for (const auto& ring : rings_) {
        const Overload one = ring->overload();
        if (one.since != 0 && (sum.since == 0 || one.since < sum.since)) sum.since = one.since;
        sum.rotations += one.rotations;
        sum.parked += one.parked;
        sum.lost_entries += one.lost_entries;
    }
    return sum;
}

}  // namespace ipcfs::fuse
