// What tests of the store share: a directory that goes away, the contents that a recovery told, bytes.
#pragma once

#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <store/segment_store.hpp>

#include "memory_store.hpp"
#include <base/log.hpp>

namespace ipcfs::store {

class TempDirectory {
public:
    explicit TempDirectory(const char* base = nullptr) {
        if (base == nullptr) base = std::getenv("TMPDIR");
        std::string name = std::string(base != nullptr ? base : "/tmp") + "/ipcfs-store-XXXXXX";
        EXPECT_NE(::mkdtemp(name.data()), nullptr);
        path = name;
    }
    TempDirectory(const TempDirectory&) = delete;
    TempDirectory& operator=(const TempDirectory&) = delete;
    ~TempDirectory() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    std::string path;
};

// Keeps what is logged as an error or worse.
class KeepingLogger final : public Logger {
public:
    std::string lines() {
        const std::scoped_lock hold(mutex_);
        return lines_;
    }

protected:
    void emit(Level level, std::string_view line) noexcept override {
        if (level < Level::kError) return;
        const std::scoped_lock hold(mutex_);
        lines_.append(line).append("\n");
    }

private:
    std::mutex mutex_;
    std::string lines_;
};

inline std::span<const std::byte> as_span(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}
inline std::string as_text(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// What a recovery told, and that it told it in order.
class Told final : public Recovery {
public:
    struct Message {
        State state;
        std::string head, content;
        Key origin;
        std::uint64_t payload = 0;
        bool operator==(const Message&) const = default;
    };
    struct Channel {
        std::string record;
        std::uint64_t last_sequence = 0;
        std::map<std::uint64_t, Message> messages;
        bool operator==(const Channel&) const = default;
    };
    void channel(std::uint64_t id, std::span<const std::byte> record,
                 std::uint64_t last_sequence) override {
        EXPECT_FALSE(channels.contains(id)) << "channel " << id << " was told twice";
        channels[id] = {as_text(record), last_sequence, {}};
        now_ = id;
    }
    void message(const Recovered& message) override {
        EXPECT_EQ(message.key.channel, now_);
        auto& all = channels[now_].messages;
        EXPECT_TRUE(all.empty() || all.rbegin()->first < message.key.sequence)
            << "channel " << now_ << " is told out of order";
        all[message.key.sequence] = {message.state, as_text(message.head), as_text(message.content),
                                     message.origin, message.payload};
        ++messages;
    }
    void request(std::uint64_t id) override { requests.push_back(id); }

    std::map<std::uint64_t, Channel> channels;
    std::vector<std::uint64_t> requests;
    std::size_t messages = 0;

private:
    std::uint64_t now_ = 0;
};

// A completion that a test waits for.
class Wait final : public Completion {
public:
    void durable(int error) noexcept override {
        const std::scoped_lock hold(mutex_);
        error_ = error;
        ++calls_;
        changed_.notify_all();
    }
    int error() {
        std::unique_lock hold(mutex_);
        EXPECT_TRUE(changed_.wait_for(hold, std::chrono::seconds(30), [&] { return calls_ != 0; }));
        EXPECT_EQ(calls_, 1);
        return error_;
    }
    bool called() {
        const std::scoped_lock hold(mutex_);
        return calls_ != 0;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int error_ = -1;
    int calls_ = 0;
};

inline int wait_durable(Store& store, Lsn lsn) {
    Wait wait;
    store.when_durable(lsn, wait);
    return wait.error();
}

inline Put put_of(Key key, std::string_view head, std::string_view content, State state = {},
                  Key origin = {}, std::uint64_t payload = 0) {
    return {key, state, as_span(head), as_span(content), origin, payload};
}

inline Result<Lsn> put_one(Store& store, Key key, std::string_view content,
                           std::uint64_t request = 0) {
    const Put put = put_of(key, "head", content);
    return store.put(std::span(&put, 1), request);
}

inline std::uint64_t seed() {
    const char* const given = std::getenv("IPCFS_TEST_SEED");
    return given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
}

// Waits until `holds()` or for 30 seconds.
template <class F>
bool eventually(F&& holds) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!holds()) {
        if (std::chrono::steady_clock::now() > until) return false;
        ::usleep(1000);
    }
    return true;
}

}  // namespace ipcfs::store
