// Whether everything that several writers sent came, once, and in each writer's order. In memory
// that forked processes share. Any thread or process.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace ipcfs::bench {

constexpr std::size_t kMessageSize = 64;
constexpr std::uint32_t kWriters = 8;
constexpr std::uint32_t kReaders = 8;
constexpr std::uint32_t kEnd = UINT32_MAX;  // as the writer: the reader that takes it ends

// What the messages carry.
struct Numbered {
    std::uint32_t writer = 0;
    std::uint32_t number = 0;
    std::byte rest[kMessageSize - 8] = {};
    std::span<const std::byte> bytes() const { return std::as_bytes(std::span(this, 1)); }
};
static_assert(sizeof(Numbered) == kMessageSize);

class Census {
public:
    explicit Census(std::uint32_t each);  // messages of each writer
    Census(const Census&) = delete;
    Census& operator=(const Census&) = delete;
    ~Census();

    std::uint32_t each() const { return each_; }

    // One reader's view; not shared.
    class Reader {
    public:
        explicit Reader(Census& census) : census_(census), last_(kWriters, 0) {}
        // False when the message is the end.
        bool take(std::span<const std::byte> message);

    private:
        Census& census_;
        std::vector<std::uint64_t> last_;  // of each writer: number + 1
    };

    // Messages lost, doubled, torn or out of their writer's order. When all readers have ended.
    std::uint64_t wrong() const;

private:
    struct Shared {
        std::atomic<std::uint64_t> wrong;
        std::atomic<std::uint8_t> seen[1];  // each_ for each writer
    };
    std::size_t size() const { return sizeof(Shared) + std::size_t{kWriters} * each_; }
    std::uint32_t each_;
    Shared* shared_;
};

}  // namespace ipcfs::bench
