// FUSE requests counted by opcode. Each worker thread has its own block, so counting is one
// uncontended addition; readers add the blocks up.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ipcfs::fuse {

constexpr std::size_t kOpcodes = 64;  // the kernel uses less than that; others share the last one
using RequestCounts = std::array<std::uint64_t, kOpcodes>;

class alignas(64) OpcodeCounts {
public:
    // One thread.
    void count(std::uint32_t opcode) noexcept {
        auto& cell = cells_[opcode < kOpcodes ? opcode : kOpcodes - 1];
        cell.store(cell.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    // Any thread.
    void add_to(RequestCounts& sum) const noexcept {
        for (std::size_t i = 0; i < kOpcodes; ++i)
            sum[i] += cells_[i].load(std::memory_order_relaxed);
    }

private:
    std::array<std::atomic<std::uint64_t>, kOpcodes> cells_{};
};

}  // namespace ipcfs::fuse
