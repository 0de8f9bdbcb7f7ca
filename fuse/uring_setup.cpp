// Setting up one ring queue, and what a predecessor left in its entries. On the thread that starts the session,
// but for create() and what register_entries() calls: on the queue's own.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <system_error>
#include <utility>

#include <base/thread.hpp>
#include <fuse/inheritance.hpp>
#include <fuse/uring.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kPage = RingEntry::kPage;
constexpr unsigned kSubmissions = 512;  // SQEs; a full queue is flushed, so depth may exceed it

static_assert(kRingNoteAt >= sizeof(RingHeader));
static_assert(kRingNoteAt + sizeof(RingNote) <= kPage - sizeof(fuse_in_header) - kRingHeaderBytes);

enum class Left { kNothing, kReply, kRequest };
Left left_in(const RingEntry& entry) {
    const std::uint64_t id = entry.header().commit_id;
    const RingNote& note = entry.note();
    if (id == 0 || note.settled.load() == id) return Left::kNothing;
    return note.answered.load() == id ? Left::kReply : Left::kRequest;
}

// handle() has put the headers in front of the payload.
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
        thread_ = start_thread("ipcfs-ring-" + std::to_string(settings_.queue), [this] { run(); });
    } catch (const std::system_error&) {
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
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(settings_.queue, &cpus);
    // Fails for a CPU that is possible but absent; no request can come from there.
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
        // Reading a page that was never written would allocate it.
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

// The kernel still knows an entry whose request a predecessor left, and takes the reply by the commit id from any
// process that has the buffers at the same addresses (Linux 6.18). It has forgotten all free entries, so these are
// registered anew.
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

// A request that a predecessor left, perhaps partly overwritten by a reply.
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

}  // namespace ipcfs::fuse
