// One ring queue: its set-up, and the thread that serves it. Answers are in uring_reply.cpp, what waits in
// its entries in uring_parked.cpp.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include <base/check.hpp>
#include <fuse/inheritance.hpp>
#include <fuse/session.hpp>
#include <fuse/uring.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kPage = RingEntry::kPage;
constexpr unsigned kSubmissions = 512;  // SQEs; a full queue is flushed, so depth may exceed it
constexpr std::uint64_t kWakeTag = 0;   // user_data of the eventfd's read; else a RingEntry*

static_assert(kRingNoteAt >= sizeof(RingHeader));
static_assert(kRingNoteAt + sizeof(RingNote) <= kPage - sizeof(fuse_in_header) - kRingHeaderBytes);

enum class Left { kNothing, kReply, kRequest };
Left left_in(const RingEntry& entry) {
    const std::uint64_t id = entry.header().commit_id;
    const RingNote& note = entry.note();
    if (id == 0 || note.settled.load() == id) return Left::kNothing;
    return note.answered.load() == id ? Left::kReply : Left::kRequest;
}

// Its headers lie in front of its payload, where handle() put them.
std::byte* copied_request(RingEntry& entry) {
    return entry.payload() - entry.note().op_bytes - sizeof(fuse_in_header);
}

// Large enough that one writer still gets through beside a crowd of readers, at any depth.
unsigned reserve_of(unsigned depth) {
    return std::max(1U, std::min(std::max(8U, depth / 8), depth / 4));
}

}  // namespace

std::size_t ring_stride(std::size_t max_payload) noexcept {
    return kPage + (max_payload + kPage - 1) / kPage * kPage;
}

RingQueue::RingQueue(RingSettings settings)
    : settings_(std::move(settings)),
      limit_(settings_.depth - reserve_of(settings_.depth)),
      entries_(settings_.depth) {}

RingQueue::~RingQueue() {
    stop();
    join();
    if (region_ && !settings_.region) ::munmap(region_, region_bytes_);
}

Result<void> RingQueue::prepare() {
    alarm_->event.reset(::eventfd(0, EFD_CLOEXEC));
    if (!alarm_->event) return errno_fault("eventfd");
    auto prepared = prepared_.get_future();
    try {
        thread_ = std::thread([this] { run(); });
    } catch (const std::exception&) {
        return Fault{EAGAIN, "start a ring's thread"};
    }
    return prepared.get();
}

void RingQueue::let_register() {
    if (!gone_.exchange(true)) go_.set_value(true);
}

Result<void> RingQueue::await_registered() {
    return registered_.get_future().get();
}

void RingQueue::stop() noexcept {
    stop_.store(true);
    if (!gone_.exchange(true)) go_.set_value(false);
    alarm_->sleeping.store(true);
    alarm_->wake();
}

void RingQueue::join() noexcept {
    if (thread_.joinable()) thread_.join();
}

// On the queue's thread: the ring and the affinity belong to it.
Result<void> RingQueue::create() {
    const std::string name = "ipcfs-ring-" + std::to_string(settings_.queue);
    ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(settings_.queue, &cpus);
    // Fails for a CPU that is possible but absent: then nobody calls from it either.
    ::pthread_setaffinity_np(::pthread_self(), sizeof cpus, &cpus);

    const std::size_t stride = ring_stride(settings_.max_payload);
    region_bytes_ = stride * settings_.depth;
    void* region = settings_.region;
    if (!region) {
        region = ::mmap(nullptr, region_bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (region == MAP_FAILED) return errno_fault("map the ring's payload buffers");
    region_ = static_cast<std::byte*>(region);
    ::madvise(region_, region_bytes_, MADV_NOHUGEPAGE);  // a parked read costs a page, not 2 MiB
    ::madvise(region_, region_bytes_, MADV_DONTDUMP);
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        RingEntry& entry = entries_[i];
        entry.queue = this;
        entry.memory = region_ + i * stride;
        entry.buffers[0] = {entry.memory, sizeof(RingHeader)};
        entry.buffers[1] = {entry.payload(), stride - kPage};
        // Its page is not looked at, and so not made, for nothing.
        entry.left = settings_.inheritance && settings_.inheritance->used(entry.memory) &&
                     left_in(entry) != Left::kNothing;
    }

    io_uring_params params{};
    params.flags =
        IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    params.cq_entries = std::max(settings_.depth + 8, kSubmissions);
    if (const int error = ::io_uring_queue_init_params(kSubmissions, &ring_, &params); error < 0)
        return Fault{-error, "io_uring_setup"};
    ring_made_ = true;
    if (const int error = ::io_uring_register_files(&ring_, &settings_.device, 1); error < 0)
        return Fault{-error, "register /dev/fuse with io_uring"};
    ::io_uring_register_ring_fd(&ring_);  // saves a look-up a call; works without
    return {};
}

std::vector<LeftRequest> RingQueue::left() const {
    std::vector<LeftRequest> all;
    for (const RingEntry& entry : entries_) {
        if (!entry.left || left_in(entry) != Left::kRequest) continue;
        const auto& header = *reinterpret_cast<const RingHeader*>(entry.memory);
        const RingNote& note = entry.note();
        const bool copied = note.seen.load() == header.commit_id;
        const std::byte* copy = entry.memory + kPage - note.op_bytes;
        fuse_in_header in;
        std::memcpy(&in, copied ? copy - sizeof in : header.in_out, sizeof in);
        LeftRequest one{in.unique, in.opcode, 0};
        std::memcpy(&one.handle, copied ? copy : header.op_in, sizeof one.handle);
        all.push_back(one);
    }
    return all;
}

// An entry whose request was left keeps its place in the kernel, which takes the reply by the commit id
// from whoever has the buffers at the same addresses (Linux 6.18). All others are registered anew: the
// kernel has forgotten that they were free.
Result<void> RingQueue::register_entries() {
    await_mail();
    std::vector<RingEntry*> again;
    for (auto& entry : entries_) {
        const Left what = entry.left ? left_in(entry) : Left::kNothing;
        if (what == Left::kNothing) {
            submit_command(entry, RingCommand::kRegister);
            continue;
        }
        entry.adopted = true;
        entry.commit_id = entry.header().commit_id;
        if (what == Left::kReply) {
            submit_command(entry, RingCommand::kCommitAndFetch);
        } else {
            again.push_back(&entry);
        }
    }
    std::sort(again.begin(), again.end(),
              [](auto* a, auto* b) { return a->commit_id < b->commit_id; });
    int submitted = 0;
    do submitted = submit();
    while (submitted == -EINTR);
    if (submitted < 0) return Fault{-submitted, "submit FUSE ring entries"};
    // A refused registration completes at once, an accepted one with its first request.
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
        if (cqe->user_data == kWakeTag) continue;
        if (reinterpret_cast<RingEntry*>(cqe->user_data)->adopted) continue;
        if (cqe->res < 0 && cqe->res != -EAGAIN && cqe->res != -EINTR)
            return Fault{-cqe->res, "register FUSE ring entries"};
    }
    for (RingEntry* entry : again) handle_again(*entry);
    return {};
}

void RingQueue::run() noexcept {
    serve();
    ended_.store(true);
    // Here and not at destruction: the kernel drops the ring's hold on /dev/fuse with it.
    if (ring_made_) ::io_uring_queue_exit(&ring_);
}

void RingQueue::serve() {
    served_by_.store(std::this_thread::get_id());
    auto go = go_.get_future();
    auto created = create();
    const bool usable = created.has_value();
    prepared_.set_value(std::move(created));
    if (!usable || !go.get()) {
        registered_.set_value(Fault{ECANCELED, "ring stopped"});
        return;
    }
    auto registered = register_entries();
    const bool running = registered.has_value();
    registered_.set_value(std::move(registered));

    while (running && !stop_.load(std::memory_order_relaxed) &&
           !ended_.load(std::memory_order_relaxed)) {
        drain_mail();
        const Nanos due = next_tick();
        int result = 0;
        // A poster that sees `sleeping` writes the eventfd; one that came before left its mail.
        alarm_->sleeping.store(true);
        if (mail_.load() != nullptr || stop_.load()) {
            result = submit();
        } else if (due != 0) {
            const Nanos left = std::max<Nanos>(due - SystemClock().monotonic(), 1);
            __kernel_timespec wait{left / kSecond, left % kSecond};
            io_uring_cqe* first = nullptr;
            result = ::io_uring_submit_and_wait_timeout(&ring_, &first, 1, &wait, nullptr);
        } else {
            result = ::io_uring_submit_and_wait(&ring_, 1);
        }
        alarm_->sleeping.store(false);
        settle();
        if (result < 0 && result != -EINTR && result != -ETIME && result != -EAGAIN &&
            result != -EBUSY) {
            end("io_uring_enter failed");
            break;
        }
        if (!serve_completions()) break;
        if (due != 0) tick(due);
    }
    if (running && !ended_.load()) {  // stopped, not aborted: the last replies still go out
        drain_mail();
        submit();
    }
}

int RingQueue::submit() {
    const int result = ::io_uring_submit(&ring_);
    settle();
    return result;
}

// Replies that the kernel has taken are nothing to a successor.
void RingQueue::settle() {
    if (committing_.empty() || ::io_uring_sq_ready(&ring_) != 0) return;
    for (RingEntry* entry : committing_)
        entry->note().settled.store(entry->commit_id, std::memory_order_release);
    committing_.clear();
}

bool RingQueue::serve_completions() {
    io_uring_cqe* cqe = nullptr;
    unsigned head = 0;
    unsigned seen = 0;
    io_uring_for_each_cqe(&ring_, head, cqe) {
        complete(cqe->user_data, cqe->res);
        ++seen;
    }
    ::io_uring_cq_advance(&ring_, seen);
    return !ended_.load(std::memory_order_relaxed);
}

void RingQueue::complete(std::uint64_t tag, int result) {
    if (tag == kWakeTag) return await_mail();
    RingEntry& entry = *reinterpret_cast<RingEntry*>(tag);
    switch (result) {
        case 0: return handle(entry);
        case -EAGAIN:
        case -EINTR: return submit_command(entry, entry.last);
        case -ENOTCONN:
        case -ECONNABORTED:
        case -ENODEV: return end("the file system was unmounted");
        default:
            if (std::exchange(entry.adopted, false))
                return submit_command(entry, RingCommand::kRegister);
            // The kernel did not take the entry back. The ring goes on with one less.
            if (lost_.fetch_add(1, std::memory_order_relaxed) + 1 == entries_.size())
                end("the kernel refuses all ring entries");
    }
}

void RingQueue::handle(RingEntry& entry) {
    RingHeader& header = entry.header();
    fuse_in_header in;
    std::memcpy(&in, header.in_out, sizeof in);
    entry.commit_id = header.commit_id;
    entry.adopted = false;
    const std::size_t payload = header.payload_bytes;
    IPCFS_CHECK(payload <= settings_.max_payload + kPage && in.len >= sizeof in + payload);
    const std::size_t op_bytes = in.len - sizeof in - payload;
    IPCFS_CHECK(op_bytes <= kRingHeaderBytes);

    // Handlers want one contiguous request: put the headers in front of the payload where it lies.
    std::byte* start = entry.payload() - op_bytes - sizeof in;
    std::memcpy(start, &in, sizeof in);
    std::memcpy(start + sizeof in, header.op_in, op_bytes);
    if (settings_.region) {
        RingNote& note = entry.note();
        note.op_bytes = static_cast<std::uint32_t>(op_bytes);
        note.payload_bytes = static_cast<std::uint32_t>(payload);
        note.seen.store(entry.commit_id, std::memory_order_release);
    }
    process(entry, start, false);
}

// One that a predecessor left, perhaps with a reply half written over it.
void RingQueue::handle_again(RingEntry& entry) {
    RingNote& note = entry.note();
    if (note.seen.load() != entry.commit_id) {
        handle(entry);
        return;
    }
    if (note.replying.load() == entry.commit_id) {
        std::memcpy(entry.payload(), note.saved,
                    std::min<std::size_t>(note.saved_bytes, sizeof note.saved));
        note.replying.store(0);
    }
    process(entry, copied_request(entry), true);
}

void RingQueue::process(RingEntry& entry, const std::byte* raw, bool left) {
    if (settings_.fetched) settings_.fetched->fetch_add(1, std::memory_order_relaxed);
    Request request(*settings_.session, raw, &entry, left);
    settings_.session->dispatch(request, *settings_.counts);
    traffic_ |= !request.was_moved();
    if (request.is_open()) {  // there is no reply, but the entry is to fetch the next one
        fuse_out_header out{sizeof out, 0, request.unique()};
        const iovec iov{&out, sizeof out};
        reply(entry, &iov, 1);
    }
}

io_uring_sqe* RingQueue::take_sqe() {
    for (;;) {
        if (io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_)) return sqe;
        const int result = submit();
        IPCFS_CHECK(result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY);
    }
}

void RingQueue::submit_command(RingEntry& entry, RingCommand command) {
    entry.last = command;
    io_uring_sqe* sqe = take_sqe();
    std::memset(sqe, 0, 2 * sizeof *sqe);  // an SQE128
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->flags = IOSQE_FIXED_FILE;
    sqe->fd = 0;  // the registered one
    sqe->cmd_op = static_cast<std::uint32_t>(command);
    sqe->user_data = reinterpret_cast<std::uint64_t>(&entry);
    RingCommandArea area{};
    area.queue = static_cast<std::uint16_t>(settings_.queue);
    if (command == RingCommand::kRegister) {
        sqe->addr = reinterpret_cast<std::uint64_t>(entry.buffers);
        sqe->len = 2;
    } else {
        area.commit_id = entry.commit_id;
        if (settings_.region) committing_.push_back(&entry);
    }
    std::memcpy(sqe->cmd, &area, sizeof area);
}

void RingQueue::await_mail() {
    io_uring_sqe* sqe = take_sqe();
    ::io_uring_prep_read(sqe, alarm_->event.get(), &wake_value_, sizeof wake_value_, 0);
    sqe->user_data = kWakeTag;
}

void RingQueue::end(const char* reason) {
    if (ended_.exchange(true)) return;
    if (settings_.on_end && !stop_.load()) settings_.on_end(reason);
}

}  // namespace ipcfs::fuse
