// Bucket 0 holds latencies below 64 ns; then each octave has sixteen buckets; the last bucket holds
// everything from 2^36 ns. Any thread, under the owner's lock.
#include <algorithm>
#include <cmath>
#include <limits>

#include <insight/histogram.hpp>

namespace ipcfs::insight {

std::uint64_t Histogram::upper_bound(std::size_t bucket) noexcept {
    if (bucket == 0) return (std::uint64_t{1} << kFirstOctave) - 1;
    if (bucket == kBuckets - 1) return std::numeric_limits<std::uint64_t>::max();
    const std::size_t octave = kFirstOctave + (bucket - 1) / kSubBuckets;
    const std::uint64_t sub = (bucket - 1) % kSubBuckets;
    return ((kSubBuckets + sub + 1) << (octave - kSubBits)) - 1;
}

void Histogram::merge(const Histogram& other) noexcept {
    for (std::size_t i = 0; i < kBuckets; ++i) add_saturating(buckets_[i], other.buckets_[i]);
    count_ += other.count_;
    max_ = std::max(max_, other.max_);
}

std::uint64_t Histogram::percentile(double q) const noexcept {
    // Sum the buckets instead of using count_: a saturated bucket must not push the rank past the end.
    std::uint64_t total = 0;
    for (const std::uint32_t n : buckets_) total += n;
    if (total == 0) return 0;
    const double share = q > 0 ? std::min(q, 1.0) : 0.0;  // NaN counts as 0
    const double wanted = std::ceil(share * static_cast<double>(total));
    const std::uint64_t rank =
        std::clamp(static_cast<std::uint64_t>(wanted), std::uint64_t{1}, total);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < kBuckets; ++i) {
        seen += buckets_[i];
        if (seen >= rank) return std::min(upper_bound(i), max_);
    }
    return max_;
}

}  // namespace ipcfs::insight
