#include <algorithm>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include <fuse/inheritance.hpp>

namespace ipcfs::fuse {

namespace {

// Maps a memory file, whose pages are accounted for only when used, even with strict overcommit.
void* map_shared(const Fd& memory, std::size_t bytes) {
    if (!memory || ::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return nullptr;
    void* at =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memory.get(), 0);
    if (at == MAP_FAILED) return nullptr;
    ::madvise(at, bytes, MADV_DONTDUMP);
    return at;
}
Fd make_memory(const char* name) {
    return Fd(::memfd_create(name, MFD_CLOEXEC));
}

constexpr std::uint64_t kIdsALife = 1ULL << 32;

}  // namespace

Result<std::unique_ptr<Inheritance>> Inheritance::make(std::size_t ring_bytes) {
    std::unique_ptr<Inheritance> made(new Inheritance);
    made->shared_ = static_cast<Shared*>(map_shared(make_memory("ipcfs-lives"), sizeof(Shared)));
    made->slots_ = static_cast<HandleSlot*>(
        map_shared(make_memory("fuse-handles"), kSlots * sizeof(HandleSlot)));
    if (!made->shared_ || !made->slots_) return errno_fault("map what a successor inherits");
    if (ring_bytes > 0) {
        made->ring_memory_ = make_memory("fuse-rings");
        made->rings_ = static_cast<std::byte*>(map_shared(made->ring_memory_, ring_bytes));
        if (!made->rings_) return errno_fault("map the rings' buffers");
        made->ring_bytes_ = ring_bytes;
    }
    if (::getrandom(&made->shared_->connection, sizeof made->shared_->connection, 0) < 0)
        return errno_fault("getrandom");
    made->shared_->next_id = 1;
    return made;
}

Inheritance::~Inheritance() {
    if (shared_) ::munmap(shared_, sizeof(Shared));
    if (slots_) ::munmap(slots_, kSlots * sizeof(HandleSlot));
    if (rings_) ::munmap(rings_, ring_bytes_);
}

bool Inheritance::used(const std::byte* at) const noexcept {
    const off_t offset = at - rings_;
    return ::lseek(ring_memory_.get(), offset, SEEK_DATA) == offset;
}

void Inheritance::begin_life() noexcept {
    shared_->serving.store(false);
    shared_->ending.store(false);
    shared_->life.fetch_add(1);
}

std::uint64_t Inheritance::claim_ids(std::uint64_t least) noexcept {
    const std::uint64_t first = std::max(least, shared_->next_id.load());
    shared_->next_id.store(first + kIdsALife);
    return first;
}

HandleSlot* Inheritance::take_slot() noexcept {
    auto index = free_.with([this](std::vector<std::uint32_t>& list) -> std::size_t {
        if (!list.empty()) {
            const std::uint32_t last = list.back();
            list.pop_back();
            return last;
        }
        const std::size_t next = shared_->slots_used.load();
        if (next < kSlots) shared_->slots_used.store(next + 1);
        return next;
    });
    if (index >= kSlots) return nullptr;
    HandleSlot& slot = slots_[index];
    slot.generation.fetch_add(1);
    slot.poll = 0;
    slot.marks = slot.marks_before = 0;
    slot.marked_by = 0;
    slot.read_batch = 0;
    slot.backing = 0;
    return &slot;
}

void Inheritance::free_slot(HandleSlot& slot) noexcept {
    slot.node.store(0);
    free_.with([&](std::vector<std::uint32_t>& list) {
        list.push_back(static_cast<std::uint32_t>(index_of(slot)));
    });
}

std::uint64_t Inheritance::handle_of(const HandleSlot& slot) const noexcept {
    return std::uint64_t{slot.generation.load()} << 32 | index_of(slot);
}

}  // namespace ipcfs::fuse
