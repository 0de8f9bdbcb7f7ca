// Senders that put into the store themselves, and waiting for it.
#include "durable_store.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <deque>
#include <random>
#include <stdexcept>
#include <type_traits>

#include <store/segment_store.hpp>

#include <base/log.hpp>

namespace ipcfs::bench {
// Named, since Parts has members of these types and may be compiled as an included file.
namespace store_parts {

constexpr std::size_t kHead = 96;  // about what a channel keeps of a message beside its content

class Stderr final : public Logger {
public:
    Stderr() : Logger(Level::kWarn) {}

private:
    void emit(Level, std::string_view line) noexcept override {
        std::fprintf(stderr, "store: %.*s\n", static_cast<int>(line.size()), line.data());
    }
};

class Counting final : public store::Recovery {
public:
    void channel(std::uint64_t, std::span<const std::byte>, std::uint64_t) override {}
    void message(const store::Recovered&) override { ++messages; }
    void request(std::uint64_t) override {}
    std::uint64_t messages = 0;
};

class Awaited final : public store::Completion {
public:
    void durable(int error) noexcept override {
        state_.store(error == 0 ? 1 : 2, std::memory_order_release);
        state_.notify_one();  // by the address alone, should its owner have gone on
    }
    void wait() {
        state_.wait(0, std::memory_order_acquire);
        if (state_.load() != 1) throw std::runtime_error("the store could not sync");
    }

private:
    std::atomic<int> state_{0};
};

template <class T>
T must_have(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message());
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

void wait_for_disk(store::Store& store, store::Lsn lsn) {
    Awaited awaited;
    store.when_durable(lsn, awaited);
    awaited.wait();
}

class StoreSender final : public Sender {
public:
    StoreSender(store::Store& store, std::uint64_t channel, bool waits)
        : store_(store), channel_(channel), waits_(waits) {}
    void send(std::span<const std::byte> body) override {
        const auto lsn = put(body);
        if (waits_) wait_for_disk(store_, lsn);
    }
    store::Lsn put(std::span<const std::byte> body) {
        const std::array<std::byte, kHead> head{};
        store::Put put;
        put.key = {channel_, ++sequence_};
        put.head = head;
        put.content = body;
        return must_have(store_.put(std::span(&put, 1), 0));
    }

private:
    store::Store& store_;
    const std::uint64_t channel_;
    const bool waits_;
    std::uint64_t sequence_ = 0;
};

// One of many that wait. All but the constructor on the commit thread.
class Chain final : public store::Completion {
public:
    Chain(StoreSender& sender, store::Store& store, std::span<const std::byte> body,
          std::int64_t until, std::atomic<unsigned>& busy)
        : sender_(sender), store_(store), body_(body), until_(until), busy_(busy) {}
    void go() {
        from_ = now_ns();
        store_.when_durable(sender_.put(body_), *this);
    }
    void durable(int error) noexcept override {
        took.push_back(static_cast<double>(now_ns() - from_));
        if (error == 0 && now_ns() < until_) return go();
        busy_.fetch_sub(1);
        busy_.notify_one();
    }
    std::vector<double> took;

private:
    StoreSender& sender_;
    store::Store& store_;
    const std::span<const std::byte> body_;
    const std::int64_t until_;
    std::atomic<unsigned>& busy_;
    std::int64_t from_ = 0;
};

// Starts them on the commit thread, where all else of theirs happens.
class Starter final : public store::Completion {
public:
    explicit Starter(std::span<const std::unique_ptr<Chain>> chains) : chains_(chains) {}
    void durable(int) noexcept override {
        for (const auto& chain : chains_) chain->go();
    }

private:
    const std::span<const std::unique_ptr<Chain>> chains_;
};

}  // namespace store_parts
using namespace store_parts;

struct StoreUnderTest::Parts {
    explicit Parts(const std::string& directory) : store(options(directory), log) {
        Counting found;
        must_have(store.recover(found));
        recovered = found.messages;
    }
    ~Parts() { store.close(); }
    static store::Options options(const std::string& directory) {
        store::Options to;
        to.directory = directory;
        return to;
    }
    Stderr log;
    store::SegmentStore store;
    std::uint64_t recovered = 0;
    std::uint64_t channels = 0;
    std::unique_ptr<StoreSender> waiting;
};

StoreUnderTest::StoreUnderTest(const std::string& directory)
    : parts_(std::make_unique<Parts>(directory)) {}

StoreUnderTest::~StoreUnderTest() = default;

std::uint64_t StoreUnderTest::recovered() const {
    return parts_->recovered;
}

std::unique_ptr<Sender> StoreUnderTest::sender(bool waits) {
    must_have(parts_->store.put_channel(++parts_->channels, {}));
    return std::make_unique<StoreSender>(parts_->store, parts_->channels, waits);
}

Figures StoreUnderTest::rate_of_waiting(unsigned count, std::span<const std::byte> body,
                                        std::int64_t lasting) {
    if (!parts_->waiting) {
        must_have(parts_->store.put_channel(++parts_->channels, {}));
        parts_->waiting =
            std::make_unique<StoreSender>(parts_->store, parts_->channels, /*waits=*/false);
    }
    std::atomic<unsigned> busy{count};
    std::vector<std::unique_ptr<Chain>> chains;
    const auto from = now_ns();
    for (unsigned i = 0; i < count; ++i) {
        chains.push_back(
            std::make_unique<Chain>(*parts_->waiting, parts_->store, body, from + lasting, busy));
    }
    {
        Starter starter(chains);
        parts_->store.when_durable(0, starter);
        for (unsigned left = 0; (left = busy.load()) != 0;) busy.wait(left);
    }
    std::vector<double> took;
    for (const auto& chain : chains)
        took.insert(took.end(), chain->took.begin(), chain->took.end());
    const double seconds = static_cast<double>(now_ns() - from) / 1e9;
    return {static_cast<double>(took.size()) / seconds, percentile(took, 0.5),
            percentile(took, 0.99)};
}

std::uint64_t StoreUnderTest::syncs() {
    return parts_->store.health().syncs;
}

void StoreUnderTest::empty() {
    store::Lsn last = 0;
    for (std::uint64_t id = 1; id <= parts_->channels; ++id) {
        must_have(parts_->store.erase_channel(id));
        last = must_have(parts_->store.put_channel(id, {}));
    }
    // What nobody waited for is not left to the next one's first sync.
    wait_for_disk(parts_->store, last);
}

void StoreUnderTest::fill(unsigned count, std::span<const std::byte> body) {
    store::Store& store = parts_->store;
    const std::uint64_t channel = ++parts_->channels;
    store::Lsn last = must_have(store.put_channel(channel, {}));
    StoreSender fast(store, channel, false);
    for (unsigned i = 0; i < count; ++i) last = fast.put(body);
    wait_for_disk(store, last);
}

StoreUnderTest::Cleaning StoreUnderTest::clean(unsigned count, unsigned percent, unsigned kept,
                                               std::span<const std::byte> body) {
    constexpr std::size_t kBehind = 1'000;
    store::Store& store = parts_->store;
    const std::uint64_t channel = ++parts_->channels;
    must_have(store.put_channel(channel, {}));
    StoreSender sender(store, channel, false);
    std::mt19937_64 random(percent);
    std::vector<std::uint64_t> stay;
    std::deque<std::uint64_t> queued;
    for (std::uint64_t sequence = 1; sequence <= count; ++sequence) {
        const auto lsn = sender.put(body);
        if (random() % 100 >= percent) {
            queued.push_back(sequence);
        } else if (stay.size() < kept) {
            stay.push_back(sequence);
        } else {
            auto& out = stay[random() % stay.size()];
            must_have(store.erase({channel, std::exchange(out, sequence)}));
        }
        if (queued.size() > kBehind) {
            must_have(store.erase({channel, queued.front()}));
            queued.pop_front();
        }
        if (sequence % kBehind == 0) wait_for_disk(store, lsn);
    }
    const store::Health health = store.health();
    const double message = static_cast<double>(body.size() + kHead + 96);
    return {1 + static_cast<double>(health.copied_bytes) / (count * message),
            static_cast<double>(health.journal_bytes) /
                (static_cast<double>(health.messages) * message)};
}

}  // namespace ipcfs::bench
