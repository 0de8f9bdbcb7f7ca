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
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <fuse/probe.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kHeaderRoom = 4096;  // what libfuse and the kernel add to max_write
constexpr std::size_t kRingMemory = 64ULL << 30;
constexpr std::chrono::milliseconds kNotifyPatience{300};
constexpr int kInitPatience = 5000;  // ms; the kernel sends INIT at mount

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

// A request's buffer: virtual until touched, so that its size costs nothing.
class Buffer {
public:
    explicit Buffer(std::size_t size)
        : size_(size),
          data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() {
        if (*this) ::munmap(data_, size_);
    }
    explicit operator bool() const { return data_ != MAP_FAILED; }
    void* data() const { return data_; }
    std::size_t size() const { return size_; }

private:
    std::size_t size_;
    void* data_;
};

template <class T>
T read_struct(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

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

    auto mount = Mount::make({config_.mountpoint, config_.allow_other, config_.max_write});
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
    if (is_current && out.unique == session.init_unique_)
        return session.write_init_reply(iov, count);
    const FileBytes* bytes = out.error == 0 ? FileReply::current() : nullptr;
    if (!session.rings_.empty() && out.unique != 0) {
        RingEntry* entry = is_current ? std::exchange(current.entry, nullptr)
                                      : session.parked_.take_route(out.unique);
        if (entry && bytes) return entry->queue->reply(*entry, out, *bytes);
        if (entry) return entry->queue->reply(*entry, iov, count);
    }
    const int device = session.mount_.device().get();
    return bytes ? send_bytes(device, out, *bytes) : ::writev(device, iov, count);
}

// The reply is fuse_init_out as raw bytes: libfuse 3.14 cannot express all that the kernel can do.
ssize_t Session::write_init_reply(iovec* iov, int count) noexcept {
    const auto header = read_struct<fuse_out_header>(iov[0].iov_base);
    if (count == 2 && header.error == 0 && iov[1].iov_len >= sizeof(fuse_init_out)) {
        fuse_init_out out = read_struct<fuse_init_out>(iov[1].iov_base);
        std::uint64_t extra = config_.extra_init_flags & report_.init_offered;
        if (!rings_.empty()) extra |= kInitOverIoUring;
        if (report_.init_offered & kInitExt) extra |= kInitExt;
        if (config_.passthrough && (report_.init_offered & kInitPassthrough)) {
            extra |= kInitPassthrough;
            const std::uint32_t depth = 1;  // memory files lie on nothing
            std::memcpy(reinterpret_cast<std::byte*>(&out) + kInitStackDepthAt, &depth,
                        sizeof depth);
        }
        const std::uint64_t flags = (out.flags | std::uint64_t{out.flags2} << 32 | extra) &
                                    ~(rings_.empty() ? kInitOverIoUring : std::uint64_t{0});
        out.flags = static_cast<std::uint32_t>(flags);
        out.flags2 = static_cast<std::uint32_t>(flags >> 32);
        report_.init_accepted = flags;
        std::memcpy(iov[1].iov_base, &out, sizeof out);
        init_answered_ = true;
    }
    return ::writev(mount_.device().get(), iov, count);
}

Result<void> Session::start() {
    install_wake_signal();
    QuietThreads quiet;
    if (auto answered = answer_init(); !answered) return answered;
    const bool uring = !rings_.empty();
    report_.transport = uring ? Transport::kUring : Transport::kClassic;
    report_.readers = config_.reader_threads;
    if (report_.readers == 0) report_.readers = std::max(2U, std::thread::hardware_concurrency());
    if (uring) report_.readers = 1;
    report_.why_not_passthrough = try_passthrough();
    report_.passthrough = report_.why_not_passthrough.empty();
    // Handlers may ask for the report and the counts: nothing changes from the first request on.
    for (unsigned i = 0; i < report_.readers; ++i) readers_.push_back(std::make_unique<Reader>());

    for (auto& ring : rings_) ring->let_register();
    for (auto& ring : rings_)
        if (auto registered = ring->await_registered(); !registered) return registered;
    return start_readers();
}

Result<void> Session::answer_init() {
    pollfd device{mount_.device().get(), POLLIN, 0};
    Buffer buffer(config_.max_write + kHeaderRoom);
    if (!buffer) return errno_fault("map a request buffer");
    for (;;) {
        const int ready = ::poll(&device, 1, kInitPatience);
        if (ready == 0) return Fault{ETIMEDOUT, "wait for the kernel's FUSE_INIT"};
        const ssize_t got = ready < 0 ? -1 : ::read(device.fd, buffer.data(), buffer.size());
        if (got < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
        if (got < 0) return errno_fault("read FUSE_INIT");
        if (static_cast<std::size_t>(got) < sizeof(fuse_in_header) + 16)
            return Fault{EPROTO, "short FUSE_INIT"};
        const auto in = read_struct<fuse_in_header>(buffer.data());
        if (in.opcode != FUSE_INIT) return Fault{EPROTO, "request before FUSE_INIT"};
        fuse_init_in init{};
        std::memcpy(&init, static_cast<std::byte*>(buffer.data()) + sizeof in,
                    std::min(sizeof init, static_cast<std::size_t>(got) - sizeof in));
        report_.proto_major = init.major;
        report_.proto_minor = init.minor;
        report_.init_offered = init.flags;
        if (init.flags & kInitExt) report_.init_offered |= std::uint64_t{init.flags2} << 32;
        if (config_.transport == Transport::kUring && rings_.empty()) {
            report_.why_not_uring = prepare_rings(report_.init_offered);
            if (!report_.why_not_uring.empty()) rings_.clear();
        }

        init_counts_.count(in.opcode);
        init_unique_ = in.unique;
        current_request() = {in.unique, nullptr, false};
        fuse_buf request{};
        request.mem = buffer.data();
        request.size = static_cast<std::size_t>(got);
        ::fuse_session_process_buf(session_, &request);
        current_request() = {};
        init_unique_ = 0;
        if (init_answered_ || !report_.custom_io) break;
        if (::fuse_session_exited(session_)) return Fault{EPROTO, "FUSE_INIT was refused"};
    }
    return {};
}

std::string Session::prepare_rings(std::uint64_t offered) {
    if (!report_.custom_io) return "this libfuse was built without custom io";
    if (!(offered & kInitOverIoUring)) {
        const auto enabled = probe_kernel().uring_enabled;
        if (!enabled) return "the kernel has no FUSE over io_uring (Linux 6.14 has)";
        return *enabled ? "the kernel does not offer it"
                        : "/sys/module/fuse/parameters/enable_uring is N";
    }
    const unsigned queues = possible_cpus();
    const std::size_t most = kRingMemory / queues / (config_.max_write + 2 * kHeaderRoom);
    const auto depth = static_cast<unsigned>(
        std::clamp<std::size_t>(config_.ring_depth, 2, std::max<std::size_t>(most, 2)));
    for (unsigned queue = 0; queue < queues; ++queue) {
        ring_counts_.push_back(std::make_unique<OpcodeCounts>());
        RingSettings settings;
        settings.device = mount_.device().get();
        settings.session = session_;
        settings.queue = queue;
        settings.depth = depth;
        settings.max_payload = config_.max_write;
        settings.counts = ring_counts_.back().get();
        settings.on_end = [this](const char* reason) { ended(reason); };
        rings_.push_back(std::make_unique<RingQueue>(std::move(settings)));
        if (auto prepared = rings_.back()->prepare(); !prepared) return prepared.error().message();
    }
    report_.queues = queues;
    report_.depth = depth;
    return {};
}

std::string Session::try_passthrough() {
    if (!config_.passthrough) return "it is turned off";
    if (!report_.custom_io) return "this libfuse was built without custom io";
    if (!(report_.init_accepted & kInitPassthrough))
        return "the kernel does not offer it (Linux 6.9 with FUSE_PASSTHROUGH does)";
    const Fd file(::memfd_create("ipcfs-probe", MFD_CLOEXEC));
    if (!file) return errno_fault("memfd_create").message();
    auto backing = open_backing(file.get());
    if (backing) {
        close_backing(*backing);
        return {};
    }
    if (backing.error().code == EPERM) return "it needs the capability CAP_SYS_ADMIN";
    return backing.error().message();
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
    CurrentRequest& current = current_request();
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
        const auto in = read_struct<fuse_in_header>(buffer.data());
        reader.counts.count(in.opcode);
        if (in.opcode == FUSE_INTERRUPT) {
            const auto* body = static_cast<std::byte*>(buffer.data()) + sizeof in;
            interrupt(read_struct<fuse_interrupt_in>(body).unique);
            continue;
        }
        current = {in.unique, nullptr, false};
        fuse_buf request{};
        request.mem = buffer.data();
        request.size = static_cast<std::size_t>(got);
        ::fuse_session_process_buf(session_, &request);
        current = {};
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
    current = {current.unique, nullptr, true};
    pid_t tid = 0;
    if (entry) {
        tid = static_cast<pid_t>(read_struct<fuse_in_header>(entry->memory).pid);
        entry->queue->link(*entry, op, rank);
    }
    if (parked_.add(ticket.unique, std::move(op), entry, tid)) return true;
    current = {ticket.unique, entry, false};
    if (entry) entry->queue->unlink(*entry);
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
    if (done.entry) done.entry->queue->unlink(*done.entry);
    parked_.remove_operation(done.unique, done.entry != nullptr);
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
