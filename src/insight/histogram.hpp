// A log-linear histogram of latencies in less than 2 KiB (after HdrHistogram): sixteen buckets an
// octave from 64 ns to 2^36 ns, so a percentile is at most 1/16 too high. Recording takes a few shifts
// and three additions and never allocates. Not thread-safe: the owner guards it with its own lock.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace ipcfs::insight {

class Histogram {
public:
    static constexpr unsigned kFirstOctave = 6;  // below 2^6 ns: one bucket
    static constexpr unsigned kLastOctave = 36;  // from 2^36 ns: one bucket
    static constexpr unsigned kSubBits = 4;
    static constexpr unsigned kSubBuckets = 1U << kSubBits;

    // Counts one latency in ns.
    void record(std::uint64_t nanos) noexcept {
        add_saturating(buckets_[bucket_of(nanos)], 1);
        ++count_;
        max_ = std::max(max_, nanos);
    }
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
    static void add_saturating(std::uint32_t& counter, std::uint32_t by) noexcept {
        counter = by > UINT32_MAX - counter ? UINT32_MAX : counter + by;
    }
    static std::size_t bucket_of(std::uint64_t nanos) noexcept {
        if (nanos >> kFirstOctave == 0) return 0;
        if (nanos >> kLastOctave != 0) return kBuckets - 1;
        const unsigned octave = static_cast<unsigned>(std::bit_width(nanos)) - 1;
        const std::size_t sub = (nanos >> (octave - kSubBits)) & (kSubBuckets - 1);
        return 1 + (octave - kFirstOctave) * kSubBuckets + sub;
    }
    static std::uint64_t upper_bound(std::size_t bucket) noexcept;

    std::array<std::uint32_t, kBuckets> buckets_{};
    std::uint64_t count_ = 0;
    std::uint64_t max_ = 0;
};

static_assert(sizeof(Histogram) <= 2048);

}  // namespace ipcfs::insight
