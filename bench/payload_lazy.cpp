// Group payload: a large payload of which the receiver touches little, or all: filled page by page as
// it is touched, beside the sender copying all of it into memory of a message. Two processes on two
// CPUs; from the sender's start to the receiver's last touch. The content is in the sender's memory
// before.
#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "actor.hpp"
#include "bulk.hpp"
#include "payload.hpp"
#include "payload_client.hpp"
#include "servers.hpp"
#include <ipcfs/lazy.hpp>
#include <ipcfs/page_map.hpp>

namespace ipcfs::bench {
namespace {

constexpr std::size_t kLazySize = kGiB;
constexpr std::size_t kPage = 4 * kKiB;
constexpr std::size_t kPages = kLazySize / kPage;
constexpr std::size_t kTouched = kPages / 100;

// The first word of each page tells which it is; the others are the same everywhere.
std::uint64_t first_word(std::size_t page) {
    return page * 0x9e3779b97f4a7c15U;
}

class Source {
public:
    Source() : memory_(kLazySize, true) {
        fill(memory_.bytes(), std::byte{1});
        for (std::size_t page = 0; page < kPages; ++page) {
            const std::uint64_t word = first_word(page);
            std::memcpy(memory_.bytes().data() + page * kPage, &word, sizeof word);
        }
        sum_ = bench::sum(memory_.bytes());
    }
    std::span<const std::byte> bytes() const { return memory_.bytes(); }
    std::uint64_t sum() const { return sum_; }

private:
    const SharedMemory memory_;
    std::uint64_t sum_ = 0;
};

// Different pages each time; the same for all contestants.
std::vector<std::size_t> pages_to_touch(std::uint64_t seed) {
    static std::vector<std::size_t> all = [] {
        std::vector<std::size_t> pages(kPages);
        std::iota(pages.begin(), pages.end(), std::size_t{0});
        return pages;
    }();
    std::mt19937_64 random(seed);
    for (std::size_t i = 0; i < kTouched; ++i) {
        std::swap(all[i], all[std::uniform_int_distribution<std::size_t>(i, kPages - 1)(random)]);
    }
    return {all.begin(), all.begin() + kTouched};
}

void touch_some(std::span<const std::byte> bytes, const std::vector<std::size_t>& pages) {
    for (const std::size_t page : pages) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data() + page * kPage, sizeof word);
        if (word != first_word(page)) throw std::runtime_error("a page is not what was sent");
    }
}

enum class Way { kLazy, kWholeOnHugePages, kWhole };

class Contestant {
public:
    Contestant(const std::string& name, const std::string& path, const Source& source, Way way,
               bool all)
        : receiver_(name + ", receiver", [=, &source] { return receive(path, source, way, all); }),
          sender_(name + ", sender", [=, &source] { return send(path, source, way); }) {}

    // Milliseconds.
    Round round() {
        return [this] {
            receiver_.start(++seed_);
            sender_.start(0);
            const double from = sender_.finish().at(0);
            const double to = receiver_.finish().at(0);
            return Figures{(to - from) / 1e6};
        };
    }

private:
    static Actor::Act send(const std::string& path, const Source& source, Way way) {
        run_on(Place::kOneCpu);
        auto channel = std::make_shared<Channel>(need(Channel::open(path)));
        auto offered = std::make_shared<std::optional<LazyOffer>>();
        return [=, &source](std::uint64_t) {
            const std::int64_t from = now_ns();
            if (way == Way::kLazy) {
                offered->reset();
                offered->emplace(need(offer(*channel, source.bytes())));
            } else {
                Loan loan = need(channel->loan(kLazySize));
                if (way == Way::kWhole) madvise(loan.data(), kLazySize, MADV_NOHUGEPAGE);
                std::memcpy(loan.bytes().data(), source.bytes().data(), kLazySize);
                need(channel->send(std::move(loan)));
            }
            return Figures{static_cast<double>(from)};
        };
    }
    static Actor::Act receive(const std::string& path, const Source& source, Way way, bool all) {
        put_server(getpid(), Place::kOneCpu);
        auto channel = std::make_shared<Channel>(need(Channel::open(path)));
        return [=, &source](std::uint64_t seed) {
            const auto pages = pages_to_touch(seed);
            const auto touch = [&](std::span<const std::byte> bytes) {
                if (bytes.size() != kLazySize) throw std::runtime_error("a payload is cut short");
                if (!all) {
                    touch_some(bytes, pages);
                } else if (sum(bytes) != source.sum()) {
                    throw std::runtime_error("a payload is not what was sent");
                }
                return Figures{static_cast<double>(now_ns())};
            };
            const Message message = need(channel->receive());
            if (way != Way::kLazy) return touch(message.body());
            const LazyRange range = need(page_map(message, LazyMapOptions{}));
            if (range.fell_back()) throw std::runtime_error("no lazy range: " + range.why());
            return touch(range.bytes());
        };
    }

    std::uint64_t seed_ = 0;
    Actor receiver_, sender_;
};

}  // namespace

void measure_lazy(Run& run) {
    const std::string what = "lazy, 1 GiB";
    if (!has_memory(run, what, 6 * kLazySize)) return;
    run.progress("payload: " + what);
    const Source source;
    const Server ipcfs(run, Server::Program::kIpcfs, kTransports[0]);
    std::vector<std::unique_ptr<Contestant>> contestants;
    std::vector<Round> rounds;
    for (const bool all : {false, true}) {
        for (const Way way : {Way::kLazy, Way::kWholeOnHugePages, Way::kWhole}) {
            const std::string name = "w" + std::to_string(contestants.size());
            ipcfs.make_channel(name);
            contestants.push_back(
                std::make_unique<Contestant>(name, ipcfs.at(name), source, way, all));
            rounds.push_back(warmed(kLazySize, contestants.back()->round()));
        }
    }
    const auto figures = interleave(large_rounds(run, 7), rounds);
    contestants.clear();  // before the server
    const char* const baselines[] = {"filled and sent whole, huge pages", "filled and sent whole"};
    for (std::size_t i = 0; i < 2; ++i) {
        run.add({"lazy, 1 GiB, 1% of its pages at random", figures[0][0], "ms", baselines[i],
                 figures[1 + i][0], ratio_at_most(1.0 / 3)});
    }
    for (std::size_t i = 0; i < 2; ++i) {
        run.add({"lazy, 1 GiB, all of it in order", figures[3][0], "ms", baselines[i],
                 figures[4 + i][0], ratio_at_most(2)});
    }
}

}  // namespace ipcfs::bench
