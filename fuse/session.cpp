#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <new>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <fuse/buffer.hpp>
#include <fuse/probe.hpp>
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

bool connection_is_over(int error) {
    return error == ENODEV || error == ECONNABORTED;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::open(SessionConfig config, const fuse_lowlevel_ops& ops,
                                               void* user) {
    std::unique_ptr<Session> session(new Session(std::move(config), user));
    if (auto attached = session->attach(ops); !attached) return attached.error();
    return session;
}

Result<void> Session::attach(fuse_lowlevel_ops ops) {
    user_init_ = std::exchange(ops.init, &Session::on_init);
    user_destroy_ = ops.destroy;
    if (ops.destroy) ops.destroy = &Session::on_destroy;
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
    if (session.user_init_) session.user_init_(session.user_, connection);
    connection->max_write = std::min(connection->max_write, max_write);
    // Requests must lie in memory.
    connection->want &=
        ~static_cast<unsigned>(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
}

void Session::on_destroy(void* self) noexcept {
    auto& session = *static_cast<Session*>(self);
    session.user_destroy_(session.user_);
}

// Where every reply and notification of libfuse's comes out. Any thread.
ssize_t Session::on_writev(int, iovec* iov, int count, void* self) noexcept {
    auto& session = *static_cast<Session*>(self);
    const auto out = read_struct<fuse_out_header>(iov[0].iov_base);
    CurrentRequest& current = current_request();
    const bool is_current = out.unique != 0 && out.unique == current.unique && !current.parked;
    if (is_current && current.answers)
        std::exchange(current.answers, nullptr)->fetch_add(1, std::memory_order_release);
    if (is_current && out.unique == session.init_unique_)
        return session.write_init_reply(iov, count);
    const FileBytes* bytes = out.error == 0 ? FileReply::current() : nullptr;
    RingEntry* entry = nullptr;
    if (is_current) {
        entry = std::exchange(current.entry, nullptr);
    } else if (out.unique != 0 && out.unique == current.answering.unique) {
        entry = std::exchange(current.answering, {}).entry;
    }
    if (entry && bytes) return entry->queue->reply(*entry, out, *bytes);
    if (entry) return entry->queue->reply(*entry, iov, count);
    const int device = session.mount_.device().get();
    return bytes ? send_bytes(device, out, *bytes) : ::writev(device, iov, count);
}

bool Session::notify_raw(Notification code, const void* body, std::size_t size) noexcept {
    fuse_out_header header{static_cast<std::uint32_t>(sizeof header + size),
                           static_cast<std::int32_t>(code), 0};
    iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), size}};
    return ::writev(mount_.device().get(), parts, size ? 2 : 1) >= 0;
}

void Session::notify_poll(std::uint64_t handle) noexcept {
    notify_raw(Notification::kPoll, &handle, sizeof handle);
}

// What a predecessor had read and not answered comes again, before all that is new; but in no order.
Result<std::vector<std::vector<std::byte>>> Session::collect_left() {
    if (!notify_raw(Notification::kResend, nullptr, 0))
        return errno_fault("ask for requests again");
    const int device = mount_.device().get();
    const int flags = ::fcntl(device, F_GETFL);
    ::fcntl(device, F_SETFL, flags | O_NONBLOCK);
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (buffer && report_.survives) buffer.populate();
    std::vector<std::vector<std::byte>> all;
    Result<void> end;
    for (bool more = true; more && buffer;) {
        const ssize_t got = ::read(device, buffer.data(), buffer.size());
        if (got < 0) {
            if (errno == EINTR || errno == ENOENT) continue;
            if (errno != EAGAIN) end = errno_fault("read /dev/fuse");
            break;
        }
        const auto* bytes = static_cast<const std::byte*>(buffer.data());
        const auto in = read_struct<fuse_in_header>(bytes);
        const bool aside = in.opcode == FUSE_INTERRUPT || in.opcode == FUSE_FORGET ||
                           in.opcode == FUSE_BATCH_FORGET;
        more = aside || (in.unique & kUniqueResent);
        all.emplace_back(bytes, bytes + got);
    }
    ::fcntl(device, F_SETFL, flags);
    if (!end) return end.error();
    // Those that only tell something first, then by the order in which they once came.
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
        const auto place = [](const auto& request) -> std::uint64_t {
            const auto in = read_struct<fuse_in_header>(request.data());
            if (in.opcode == FUSE_INTERRUPT || in.opcode == FUSE_FORGET ||
                in.opcode == FUSE_BATCH_FORGET)
                return 0;
            return in.unique & kUniqueResent ? in.unique & ~kUniqueResent : UINT64_MAX;
        };
        return place(a) < place(b);
    });
    return all;
}

Result<void> Session::take_over() {
    auto requests = collect_left();
    if (!requests) return requests.error();
    std::vector<LeftRequest> left;
    for (const auto& request : *requests) {
        const auto in = read_struct<fuse_in_header>(request.data());
        if (!(in.unique & kUniqueResent) || in.opcode == FUSE_INTERRUPT) continue;
        LeftRequest one{in.unique & ~kUniqueResent, in.opcode, 0};
        if (request.size() >= sizeof in + sizeof one.handle)
            std::memcpy(&one.handle, request.data() + sizeof in, sizeof one.handle);
        left.push_back(one);
    }
    for (const auto& ring : rings_)
        for (const LeftRequest& one : ring->left()) left.push_back(one);
    std::sort(left.begin(), left.end(),
              [](const LeftRequest& a, const LeftRequest& b) { return a.unique < b.unique; });
    report_.taken_over = left.size();
    if (config_.on_take_over) config_.on_take_over(*this, left);
    notify_raw(Notification::kNewEpoch, nullptr, 0);
    for (auto& request : *requests) handle(request.data(), request.size(), init_counts_);
    return {};
}

// A request that came by /dev/fuse.
void Session::handle(std::byte* request, std::size_t size, OpcodeCounts& counts) noexcept {
    const auto in = read_struct<fuse_in_header>(request);
    counts.count(in.opcode);
    if (in.opcode == FUSE_INTERRUPT) {
        interrupt(read_struct<fuse_interrupt_in>(request + sizeof in).unique);
        return;
    }
    CurrentRequest& current = current_request();
    current = {in.unique, nullptr, false, (in.unique & kUniqueResent) != 0, request + sizeof in};
    fuse_buf whole{};
    whole.mem = request;
    whole.size = size;
    ::fuse_session_process_buf(session_, &whole);
    current = {};
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

Result<void> Session::start_readers() {
    for (auto& reader : readers_) {
        try {
            reader->thread = std::thread([this, r = reader.get()] { read_requests(*r); });
        } catch (const std::exception&) {
            return Fault{EAGAIN, "start a reader of /dev/fuse"};
        }
    }
    return {};
}

void Session::read_requests(Reader& reader) noexcept {
    ::pthread_setname_np(::pthread_self(), "ipcfs-fuse");
    const int device = mount_.device().get();
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (buffer && report_.survives) buffer.populate();
    while (buffer && !stopping_.load(std::memory_order_relaxed)) {
        const ssize_t got = ::read(device, buffer.data(), buffer.size());
        if (got < 0) {
            // ENOENT: the requester withdrew it while it was being read.
            if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
            ended(connection_is_over(errno) ? "the file system was unmounted"
                                            : std::string("read /dev/fuse: ") + strerror(errno));
            break;
        }
        if (static_cast<std::size_t>(got) < sizeof(fuse_in_header)) continue;
        handle(static_cast<std::byte*>(buffer.data()), static_cast<std::size_t>(got),
               reader.counts);
    }
    reader.done.store(true);
}

void Session::interrupt(std::uint64_t unique) noexcept {
    if (auto op = parked_.find_or_remember(unique, SystemClock().monotonic())) op->interrupt(EINTR);
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

bool Session::park(std::shared_ptr<Parked> op, ParkRank rank, ParkTicket& ticket) {
    CurrentRequest& current = current_request();
    IPCFS_CHECK(current.unique != 0 && !current.parked);
    RingEntry* entry = current.entry;
    ticket = {current.unique, entry};
    // From add() on, another thread may complete, unpark and reply.
    current.entry = nullptr;
    current.parked = true;
    pid_t tid = 0;
    if (entry) {
        tid = static_cast<pid_t>(read_struct<fuse_in_header>(entry->memory).pid);
        entry->queue->park(*entry, current.unique, rank);
    }
    if (parked_.add(ticket.unique, std::move(op), tid)) return true;
    current.entry = entry;
    current.parked = false;
    if (entry) entry->queue->unpark(*entry);
    ticket = {};
    return false;
}

std::size_t Session::end_unheard() {
    const auto lost = parked_.unheard();
    for (const auto& op : lost) op->interrupt(EINTR);
    return lost.size();
}

void Session::unpark(ParkTicket& ticket) noexcept {
    const ParkTicket done = std::exchange(ticket, {});
    if (done.unique == 0) return;
    if (done.entry) done.entry->queue->unpark(*done.entry);
    parked_.remove(done.unique);
    current_request().answering = done;
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

Result<void> Session::notify_inval_entry(fuse_ino_t parent, const std::string& name) {
    return notify("invalidate a name", [&] {
        return ::fuse_lowlevel_notify_inval_entry(session_, parent, name.c_str(), name.size());
    });
}

Result<void> Session::notify_delete(fuse_ino_t parent, fuse_ino_t child, const std::string& name) {
    return notify("announce a removal", [&] {
        return ::fuse_lowlevel_notify_delete(session_, parent, child, name.c_str(), name.size());
    });
}

Result<void> Session::notify_poll(fuse_pollhandle* handle) {
    return notify("wake a poller", [&] { return ::fuse_lowlevel_notify_poll(handle); });
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

int Session::reply_file(fuse_req_t req, const FileBytes& bytes) noexcept {
    if (report_.custom_io) {
        const FileReply in_place_of_the_buffer(bytes);
        // Nobody looks at it: only its length counts.
        iovec placeholder{const_cast<FileBytes*>(&bytes), bytes.length};
        return ::fuse_reply_iov(req, &placeholder, 1);
    }
    const std::unique_ptr<std::byte[]> buffer(new (std::nothrow) std::byte[bytes.length]);
    const ssize_t got = buffer ? read_bytes(bytes, buffer.get()) : -ENOMEM;
    if (got < 0) return ::fuse_reply_err(req, EIO);
    return ::fuse_reply_buf(req, reinterpret_cast<const char*>(buffer.get()),
                            static_cast<std::size_t>(got));
}

RequestCounts Session::requests() const noexcept {
    RequestCounts sum{};
    init_counts_.add_to(sum);
    for (const auto& counts : ring_counts_) counts->add_to(sum);
    for (const auto& reader : readers_) reader->counts.add_to(sum);
    return sum;
}

std::vector<Overload> Session::queues() const {
    std::vector<Overload> all;
    for (const auto& ring : rings_) all.push_back(ring->overload());
    return all;
}

Overload Session::overload() const {
    Overload sum;
    for (const auto& one : queues()) {
        if (one.since != 0 && (sum.since == 0 || one.since < sum.since)) sum.since = one.since;
        sum.rotations += one.rotations;
        sum.parked += one.parked;
        sum.lost_entries += one.lost_entries;
    }
    return sum;
}

}  // namespace ipcfs::fuse
