// One message on its way: envelope, extensions and body, with what it is charged to. Messages are
// counted references, since a queue, an open file (re-reading) and a reply under way may hold the
// same one. The envelope changes only while one holder has it (before enqueue, or under the
// channel's lock). A share has another message's content, and all else of its own: what a topic
// puts into its subscriptions, so that a body is stored once.
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
    bool redelivered = false;       // it was given out before
    bool dead = false;              // it is among the dead letters
    std::uint32_t deliveries = 0;   // times it was given out on lease
    std::uint64_t place = 0;        // in the line of its priority; kept when it comes back
    std::uint64_t sequence = 0;     // per channel, from 1
    std::uint64_t id = 0;           // unique in the daemon
    std::uint64_t correlation = 0;  // the sender's
    Nanos time = 0;                 // of enqueueing, since the epoch
    Nanos deadline = 0;             // the sender's, since the epoch; 0: none
    bool drop_when_late = false;    // it expires at the deadline
    Nanos enqueued = 0;             // monotonic
    Nanos expires = kNever;         // monotonic
    access::Subject sender;
};

class Message : public boost::intrusive::list_base_hook<> {
public:
    Envelope envelope;

    // Extensions (TLVs as in a frame, padded to 8) and then the body, in one piece.
    std::span<const std::byte> content() const noexcept { return {data(), ext_size_ + body_size_}; }
    std::span<const std::byte> extensions() const noexcept { return {data(), ext_size_}; }
    std::span<const std::byte> body() const noexcept { return {data() + ext_size_, body_size_}; }

    // What accounts and the channel's `bytes` count for it: extensions and body.
    std::uint64_t size() const noexcept { return ext_size_ + body_size_; }
    // With its payload: what statistics count.
    std::uint64_t total() const noexcept { return size() + (payload ? payload->size : 0); }
    // What its reader gets, payload and all.
    std::uint64_t content_size() const noexcept {
        return payload ? payload->size : std::uint64_t{body_size_};
    }

    // A body that is not in here: then the body is empty, and the extensions have a PayloadRef.
    payload::PayloadPtr payload;

    access::Charge charged_message;
    access::Charge charged_bytes;
    // Takes both; false, and nothing is taken, over a limit.
    bool charge(access::Account& account) noexcept;
    // The writer that waits until this message was taken (type sync). Under the channel's lock.
    WriteWaiter* writer = nullptr;

    // Where the store has it; 0: nowhere. Under the channel's lock.
    std::uint64_t kept_channel = 0;
    std::uint64_t kept_sequence = 0;

    // Of a share: the message that has the content, itself no share. Null for others.
    Message* origin() const noexcept { return origin_.get(); }

private:
    friend class MessagePool;
    friend void intrusive_ptr_add_ref(Message* message) noexcept;
    friend void intrusive_ptr_release(Message* message) noexcept;
    static constexpr std::size_t kInline = 320;  // a body of 256 bytes, and a few extensions

    explicit Message(bool is_share) noexcept : is_share_(is_share) {}
    ~Message() = default;
    const std::byte* data() const noexcept { return data_; }
    // What follows in memory, unless it is a share: room for kInline bytes.
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

// Recycles messages, so that a small one costs no allocation once warm. Outlives all messages.
// Thread-safe.
class MessagePool {
public:
    explicit MessagePool(std::size_t keep = 2048) : keep_(keep) {}
    ~MessagePool();
    MessagePool(const MessagePool&) = delete;
    MessagePool& operator=(const MessagePool&) = delete;

    // A message with copies of `extensions` and `body`. Null when memory is out.
    MessageRef make(std::span<const std::byte> extensions,
                    std::span<const std::byte> body) noexcept;
    // A small message with the content, payload and envelope of `origin`, which must not change any
    // more (but for its charges); neither redelivered nor charged. Null when memory is out.
    MessageRef share(const MessageRef& origin) noexcept;

private:
    friend void intrusive_ptr_release(Message* message) noexcept;
    // Two sizes: with room for a small content, and without.
    struct Free {
        Message* head = nullptr;
        std::size_t count = 0;
    };
    using Lists = std::array<Free, 2>;

    Message* take(bool is_share) noexcept;
    void recycle(Message* message) noexcept;
    static std::size_t bytes_of(bool is_share) noexcept {
        return sizeof(Message) + (is_share ? 0 : Message::kInline);
    }
    static void destroy(Message* message) noexcept;

    Guarded<Lists> free_;
    std::size_t keep_;
};

void intrusive_ptr_add_ref(Message* message) noexcept;
void intrusive_ptr_release(Message* message) noexcept;

}  // namespace ipcfs::queue
