// The census.
#include "census.hpp"

#include <new>
#include <sys/mman.h>

namespace ipcfs::bench {

Census::Census(std::uint32_t each) : each_(each) {
    void* memory = mmap(nullptr, size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    shared_ = static_cast<Shared*>(memory);  // zero, which is the value of its atomics
}

Census::~Census() {
    munmap(shared_, size());
}

bool Census::Reader::take(std::span<const std::byte> message) {
    Numbered got;
    if (message.size() != sizeof got) {
        ++census_.shared_->wrong;
        return !message.empty();  // end of file: nothing more comes
    }
    std::memcpy(&got, message.data(), sizeof got);
    if (got.writer == kEnd) return false;
    if (got.writer >= kWriters || got.number >= census_.each_) {
        ++census_.shared_->wrong;
        return true;
    }
    std::uint64_t& last = last_[got.writer];
    if (got.number < last) ++census_.shared_->wrong;
    last = got.number + 1ULL;
    const std::size_t at = std::size_t{got.writer} * census_.each_ + got.number;
    if (census_.shared_->seen[at].exchange(1, std::memory_order_relaxed) != 0) {
        ++census_.shared_->wrong;
    }
    return true;
}

std::uint64_t Census::wrong() const {
    std::uint64_t lost = 0;
    for (std::size_t i = 0; i < std::size_t{kWriters} * each_; ++i) {
        if (shared_->seen[i].load(std::memory_order_relaxed) == 0) ++lost;
    }
    return shared_->wrong + lost;
}

}  // namespace ipcfs::bench
