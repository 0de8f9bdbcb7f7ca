// A log-linear histogram of latencies in less than 2 KiB (after HdrHistogram): sixteen buckets an
// octave from 64 ns to 2^36 ns, so a percentile is at most 1/16 too high. Recording takes a few
// shifts and three additions and never allocates. Not thread-safe: the owner guards it with its own
// lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace ipcfs::insight {

class Histogram {
public:
    static constexpr unsigned kFirstOctave = 6;  // below 2^6 ns: one bucket
    static constexpr unsigned kLastOctave = 36;  // from 2^36 ns: one bucket
    static constexpr unsigned kSubBuckets = 16;

    // Counts one latency in ns.
    void record(std::uint64_t nanos) noexcept;
    // Adds all counts of `other`. Buckets saturate at 2^32-1.
    void merge(const Histogram& other) noexcept;

    // The latency that a share `q` (clamped to 0..1) of all recorded values does not exceed, in ns:
    // the upper bound of its bucket, never above max(). At most 1/16 too high between 64 ns and
    // 2^36 ns; 63 below, max() above. 0 if nothing was recorded.
    std::uint64_t percentile(double q) const noexcept;
    // The exact largest latency in ns; 0 if nothing was recorded.
    std::uint64_t max() const noexcept { return max_; }
    std::uint64_t count() const noexcept { return count_; }

private:
    static constexpr std::size_t kBuckets = 1 + (kLastOctave - kFirstOctave) * kSubBuckets + 1;
    static std::size_t bucket_of(std::uint64_t nanos) noexcept;
    static std::uint64_t upper_bound(std::size_t bucket) noexcept;

    std::array<std::uint32_t, kBuckets> buckets_{};
    std::uint64_t count_ = 0;
    std::uint64_t max_ = 0;
};

static_assert(sizeof(Histogram) <= 2048);

}  // namespace ipcfs::insight
