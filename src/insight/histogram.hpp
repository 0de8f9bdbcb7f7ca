// A log-linear histogram of latencies (after the idea of HdrHistogram): sixteen buckets an octave
// from 64 ns to 2^36 ns, so that a percentile is at most 1/16 above the truth whatever its size, in
// less than 2 KiB. Its owner allocates it when the first latency is recorded and guards it with its
// own lock; recording is a few shifts and three additions, and never allocates.
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

    // Counts one latency of `nanos`.
    void record(std::uint64_t nanos) noexcept;
    // Adds everything `other` has counted. Counters stop at 2^32-1, not wrap.
    void merge(const Histogram& other) noexcept;

    // The latency that a share `q` (0 to 1, clamped) of all is at or below: the upper bound of its
    // bucket, never above max(). At most 1/16 too large from 64 ns to 2^36 ns; below that the
    // answer is 63, above it max(). 0 when nothing was recorded.
    std::uint64_t percentile(double q) const noexcept;
    // The largest latency recorded, exactly; 0 when nothing was.
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
