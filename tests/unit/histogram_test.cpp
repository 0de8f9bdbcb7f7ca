#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include <insight/histogram.hpp>

namespace ipcfs::insight {
namespace {

std::uint64_t exact(const std::vector<std::uint64_t>& sorted, double q) {
    const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(sorted.size())));
    return sorted[std::max<std::size_t>(rank, 1) - 1];
}

TEST(Histogram, IsZeroWhenEmpty) {
    const Histogram empty;
    EXPECT_EQ(empty.percentile(0.5), 0U);
    EXPECT_EQ(empty.max(), 0U);
    EXPECT_EQ(empty.count(), 0U);
}

TEST(Histogram, GivesASingleValueExactly) {
    for (const std::uint64_t value :
         {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{63}, std::uint64_t{64},
          std::uint64_t{12345}, std::numeric_limits<std::uint64_t>::max()}) {
        Histogram histogram;
        histogram.record(value);
        for (const double q : {0.0, 0.5, 0.99, 1.0}) EXPECT_EQ(histogram.percentile(q), value);
        EXPECT_EQ(histogram.max(), value);
    }
}

TEST(Histogram, IsAtMostASixteenthTooLargeAndNeverTooSmallOverItsWholeRange) {
    // One value and a huge one above it, so that max() does not hide the bucket's bound.
    std::uint64_t checked = 0;
    for (std::uint64_t base = 64; base < std::uint64_t{1} << 36; base += 1 + base / 50) {
        for (const std::uint64_t value : {base - 1, base, base + 1}) {
            if (value < 64 || value >> 36 != 0) continue;
            Histogram histogram;
            histogram.record(value);
            histogram.record(std::numeric_limits<std::uint64_t>::max());
            const std::uint64_t p50 = histogram.percentile(0.5);
            EXPECT_GE(p50, value);
            EXPECT_LE(static_cast<double>(p50), static_cast<double>(value) * 1.0625) << value;
            ++checked;
        }
    }
    EXPECT_GT(checked, 1000U);
}

TEST(Histogram, PutsTheBoundariesOfAnOctaveIntoDifferentBuckets) {
    for (unsigned octave = 6; octave < 36; ++octave) {
        const std::uint64_t edge = std::uint64_t{1} << octave;
        Histogram histogram;
        histogram.record(edge - 1);
        histogram.record(edge);
        histogram.record(edge * 8);
        EXPECT_EQ(histogram.percentile(0.33), edge - 1) << octave;
        EXPECT_GE(histogram.percentile(0.66), edge);
        EXPECT_LT(histogram.percentile(0.66), edge + edge / 16);
    }
}

TEST(Histogram, SaysMaxAboveItsRangeAndSixtyThreeBelow) {
    Histogram histogram;
    histogram.record(3);
    histogram.record(std::uint64_t{1} << 36);
    histogram.record((std::uint64_t{1} << 40) + 5);
    EXPECT_EQ(histogram.percentile(0.1), 63U);
    EXPECT_EQ(histogram.percentile(0.5), (std::uint64_t{1} << 40) + 5);
}

TEST(Histogram, AgreesWithASortedListOnRandomLatencies) {
    const std::uint64_t seed = std::random_device{}();
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    std::lognormal_distribution<double> latency(11, 1.5);  // about 60 us, with a long tail
    Histogram histogram;
    std::vector<std::uint64_t> all;
    for (int i = 0; i < 20000; ++i) {
        const auto nanos = static_cast<std::uint64_t>(latency(random)) + 64;
        all.push_back(nanos);
        histogram.record(nanos);
    }
    std::sort(all.begin(), all.end());
    EXPECT_EQ(histogram.count(), all.size());
    EXPECT_EQ(histogram.max(), all.back());
    for (const double q : {0.0, 0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0}) {
        const std::uint64_t truth = exact(all, q);
        EXPECT_GE(histogram.percentile(q), truth) << q;
        EXPECT_LE(static_cast<double>(histogram.percentile(q)), static_cast<double>(truth) * 1.0625)
            << q;
    }
    EXPECT_EQ(histogram.percentile(1.0), all.back());
}

TEST(Histogram, ClampsSharesOutsideZeroToOne) {
    Histogram histogram;
    histogram.record(100);
    histogram.record(1000000);
    EXPECT_EQ(histogram.percentile(-1), histogram.percentile(0));
    EXPECT_EQ(histogram.percentile(7), histogram.percentile(1));
    EXPECT_EQ(histogram.percentile(std::nan("")), histogram.percentile(0));
}

TEST(Histogram, MergesToWhatOneHistogramWouldHaveCounted) {
    std::mt19937_64 random(7);
    Histogram left, right, both;
    for (int i = 0; i < 1000; ++i) {
        const std::uint64_t nanos = random() >> (random() % 64);
        (i % 3 == 0 ? left : right).record(nanos);
        both.record(nanos);
    }
    left.merge(right);
    EXPECT_EQ(left.count(), both.count());
    EXPECT_EQ(left.max(), both.max());
    for (double q = 0; q <= 1; q += 0.01) EXPECT_EQ(left.percentile(q), both.percentile(q));
}

TEST(Histogram, SaturatesInsteadOfWrapping) {
    Histogram low;
    low.record(100);
    for (int doubling = 0; doubling < 40; ++doubling) {
        const Histogram copy = low;
        low.merge(copy);
    }
    EXPECT_EQ(low.count(), std::uint64_t{1} << 40);
    low.record(1000000);
    // Were the counter wrapped to 0, the median would be the one large value.
    EXPECT_EQ(low.percentile(0.5), 103U);
    EXPECT_EQ(low.percentile(1), 1000000U);
}

}  // namespace
}  // namespace ipcfs::insight
