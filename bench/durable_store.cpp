// Senders that put into the store themselves, and waiting for it.
#include "durable_store.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <type_traits>

#include <store/lmdb_store.hpp>

#include <base/log.hpp>

namespace ipcfs::bench {
namespace {

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

}  // namespace

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
    store::LmdbStore store;
    std::uint64_t recovered = 0;
    std::uint64_t channels = 0;
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

void StoreUnderTest::empty() {
    for (std::uint64_t id = 1; id <= parts_->channels; ++id) {
        must_have(parts_->store.erase_channel(id));
        must_have(parts_->store.put_channel(id, {}));
    }
}

void StoreUnderTest::fill(unsigned count, std::span<const std::byte> body) {
    store::Store& store = parts_->store;
    const std::uint64_t channel = ++parts_->channels;
    store::Lsn last = must_have(store.put_channel(channel, {}));
    StoreSender fast(store, channel, false);
    for (unsigned i = 0; i < count; ++i) last = fast.put(body);
    wait_for_disk(store, last);
}

}  // namespace ipcfs::bench
