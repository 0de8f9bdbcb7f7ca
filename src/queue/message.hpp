// A message in flight: envelope, extensions and body, and what it is charged to. Messages are
// reference-counted, since a queue, an open file (for re-reading) and a pending reply may hold the
// same one. The envelope changes only while it has a single holder (before enqueueing, or under the
// channel's lock). A share has its own envelope and charges but the content of another message: a
// topic queues shares in its subscriptions, so that a body is stored once.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include <boost/intrusive/list.hpp>
#include <boost/smart_ptr/intrusive_ptr.hpp>
#include <payload/payload.hpp>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/clock.hpp>
#include <base/guarded.hpp>

namespace ipcfs::queue {

class MessagePool;
class WriteWaiter;

constexpr std::uint8_t kCritical = 255;
constexpr std::uint8_t kHigh = 192;
constexpr std::uint8_t kNormal = 128;
constexpr std::uint8_t kLow = 0;

struct Envelope {
    std::uint8_t priority = kNormal;
    std::uint8_t type = 2;          // a FrameType; 2 is data
    bool redelivered = false;       // delivered before
    bool dead = false;              // a dead letter
    std::uint32_t deliveries = 0;   // leases so far
    std::uint64_t position = 0;     // order within its priority; kept when requeued
    std::uint64_t sequence = 0;     // per channel, from 1
    std::uint64_t id = 0;           // unique in the daemon
    std::uint64_t correlation = 0;  // chosen by the sender
    Nanos time = 0;                 // of enqueueing, ns since the epoch
    Nanos deadline = 0;             // set by the sender, ns since the epoch; 0: none
    bool drop_when_late = false;    // expires at `deadline`
    Nanos enqueued = 0;             // monotonic time of enqueueing
    Nanos expires = kNever;         // monotonic time of expiry
    access::Subject sender;
};

class Message : public boost::intrusive::list_base_hook<> {
public:
    Envelope envelope;

    // Extensions (TLVs as in a frame, padded to 8 bytes) followed by the body.
    std::span<const std::byte> content() const noexcept { return {data(), ext_size_ + body_size_}; }
    std::span<const std::byte> extensions() const noexcept { return {data(), ext_size_}; }
    std::span<const std::byte> body() const noexcept { return {data() + ext_size_, body_size_}; }

    // Bytes that accounts and the channel's `bytes` count: extensions and body.
    std::uint64_t size() const noexcept { return ext_size_ + body_size_; }
    // Bytes that statistics count: size() and the payload.
    std::uint64_t total() const noexcept { return size() + (payload ? payload->size : 0); }
    // Bytes that a reader gets: the payload, or else the body.
    std::uint64_t content_size() const noexcept {
        return payload ? payload->size : std::uint64_t{body_size_};
    }

    // A large body kept outside the message. The body is then empty, and the extensions hold a
    // PayloadRef.
    payload::PayloadPtr payload;

    access::Charge charged_message;
    access::Charge charged_bytes;
    // Takes both charges. On a limit, takes neither and returns false.
    bool charge(access::Account& account) noexcept;
    // Type sync: the writer that waits for this message to be taken. Under the channel's lock.
    WriteWaiter* writer = nullptr;

    // Where the durable store keeps it; 0 if it does not. Under the channel's lock.
    std::uint64_t kept_channel = 0;
    std::uint64_t kept_sequence = 0;

    // The message whose content a share uses, never a share itself. Null if this is no share.
    Message* origin() const noexcept { return origin_.get(); }

private:
    friend class MessagePool;
    friend void intrusive_ptr_add_ref(Message* message) noexcept;
    friend void intrusive_ptr_release(Message* message) noexcept;
    static constexpr std::size_t kInline = 320;  // a body of 256 bytes, and a few extensions

    explicit Message(bool is_share) noexcept : is_share_(is_share) {}
    ~Message() = default;
    const std::byte* data() const noexcept { return data_; }
    // The kInline bytes that follow this object in memory; a share has none.
    std::byte* room() noexcept { return reinterpret_cast<std::byte*>(this + 1); }

    std::atomic<std::uint32_t> references_{0};
    std::uint32_t ext_size_ = 0;
    std::size_t body_size_ = 0;
    const std::byte* data_ = nullptr;
    MessagePool* pool_ = nullptr;
    Message* next_free_ = nullptr;
    std::unique_ptr<std::byte[]> large_;
    boost::intrusive_ptr<Message> origin_;
    const bool is_share_;
};

using MessageRef = boost::intrusive_ptr<Message>;

// Recycles messages, so that small ones need no allocation once warm. Must outlive all messages.
// Thread-safe.
class MessagePool {
public:
    explicit MessagePool(std::size_t keep = 2048) : keep_(keep) {}
    ~MessagePool();
    MessagePool(const MessagePool&) = delete;
    MessagePool& operator=(const MessagePool&) = delete;

    // Makes a message with copies of `extensions` and `body`. Null if out of memory.
    MessageRef make(std::span<const std::byte> extensions,
                    std::span<const std::byte> body) noexcept;
    // Makes a share with the content, payload and envelope of `origin`, which must not change from
    // now on (except its charges). The share is not marked redelivered and not charged. Null if out
    // of memory.
    MessageRef share(const MessageRef& origin) noexcept;

    // Numbers of messages, unique in the daemon.
    std::uint64_t new_id() noexcept { return next_id_.fetch_add(1, std::memory_order_relaxed); }
    void start_ids(std::uint64_t first) noexcept { next_id_ = first; }

private:
    friend void intrusive_ptr_release(Message* message) noexcept;
    // Free lists: messages with inline room, and shares without.
    struct Free {
        Message* head = nullptr;
        std::size_t count = 0;
    };
    using Lists = std::array<Free, 2>;

    struct Shelf;
    Shelf& shelf(unsigned further) noexcept;
    Message* take(bool is_share) noexcept;
    void recycle(Message* message) noexcept;
    static std::size_t bytes_of(bool is_share) noexcept {
        return sizeof(Message) + (is_share ? 0 : Message::kInline);
    }
    static void destroy(Message* message) noexcept;
    static void destroy_all(Free& free) noexcept;

    // One for each CPU (or a few). Messages are often recycled on another CPU than they are taken on, so an empty shelf
    // takes over the list of another shelf.
    struct alignas(64) Shelf {
        Guarded<Lists> free;
    };
    static constexpr unsigned kShelves = 4;
    std::array<Shelf, kShelves> shelves_;
    std::size_t keep_;
    std::atomic<std::uint64_t> next_id_{1};
};

inline void intrusive_ptr_add_ref(Message* message) noexcept {
    message->references_.fetch_add(1, std::memory_order_relaxed);
}

inline void intrusive_ptr_release(Message* message) noexcept {
    if (message->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        message->pool_->recycle(message);
    }
}

}  // namespace ipcfs::queue
