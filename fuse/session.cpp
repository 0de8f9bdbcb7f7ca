#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include <fuse/buffer.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::chrono::milliseconds kNotifyPatience{300};

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

bool Session::notify_raw(Notification code, const void* body, std::size_t size) noexcept {
    fuse_out_header header{static_cast<std::uint32_t>(sizeof header + size),
                           static_cast<std::int32_t>(code), 0};
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), size}};
    return ::writev(mount_.device().get(), parts, size ? 2 : 1) >= 0;
}

Result<void> Session::start() {
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
    if (config_.inheritance) config_.inheritance->set_serving();
    for (auto& ring : rings_) ring->let_register();
    for (auto& ring : rings_)
        if (auto registered = ring->await_registered(); !registered) return registered;
    return start_readers();
}

void Session::ended(const std::string& reason) noexcept {
    ::fuse_session_exit(session_);
    if (stopping_.load() || end_reported_.exchange(true)) return;
    if (config_.on_end) config_.on_end(reason);
}

void Session::stop() noexcept {
    std::scoped_lock hold(stop_mutex_);
    if (std::exchange(stopped_, true)) return;
    stopping_.store(true);
    if (session_) ::fuse_session_exit(session_);
    // One that could not take over: the holder may have another try.
    if (config_.inheritance && !config_.inheritance->ending()) mount_.leave();
    mount_.unmount();
    // Without privilege that aborted nothing: these replies are what frees the clients.
    for (const auto& op : parked_.operations()) op->interrupt(ENOTCONN);
    for (auto& ring : rings_) ring->stop();
    stop_readers();
    for (auto& ring : rings_) ring->join();
    for (const auto& op : parked_.operations()) op->interrupt(ENOTCONN);  // parked meanwhile
    if (notifying_.try_lock_for(kNotifyPatience)) notifying_.unlock();
}

std::size_t Session::end_lost_interrupts() {
    const auto lost = parked_.lost_interrupts();
    for (const auto& op : lost) op->interrupt(EINTR);
    return lost.size();
}

template <class Notify>
Result<void> Session::notify(const char* what, Notify&& send) {
    const std::shared_lock inside(notifying_);
    if (stopping_.load()) return Fault{ENOTCONN, what};
    const int result = send();
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
