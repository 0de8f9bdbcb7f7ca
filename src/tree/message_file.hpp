// An open message file: queue, next, stream, priority/*, framed/ of them, and dead/{queue,next}. On a
// topic every open that reads is a subscription of its own. Any thread; its own
// short lock guards the message being read.
#pragma once

#include <mutex>

#include <payload/payload.hpp>

#include <tree/channel_file.hpp>
#include <tree/file_kind.hpp>

namespace ipcfs::tree {

class MessageFile final : public SendingFile, public std::enable_shared_from_this<MessageFile> {
public:
    // EPIPE when the channel is gone, EDQUOT over the user's limit of open files.
    static Result<std::shared_ptr<MessageFile>> open(std::shared_ptr<channel::Endpoint> channel,
                                                     const MessageStyle& style, OpenMode mode,
                                                     const access::Subject& subject,
                                                     payload::Store& payloads);
    MessageFile(Entry entry, std::shared_ptr<channel::Endpoint> subscription,
                const MessageStyle& style, pid_t opener, payload::Store& payloads);
    ~MessageFile() override;

    Traits traits() const noexcept override { return {.is_positionless = positionless()}; }
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    void settle(Delivery& delivery, bool sent) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;

    void start_read(ReadOperation& operation) noexcept override;
    void cancel_read(ReadOperation& operation, queue::Wake why) noexcept override;
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override;
    // Puts a message of the sender's, charged to `account`, into `batch`. An errno, or 0.
    static int add(queue::MessageRef message, const access::Subject& sender,
                   access::Account& account, queue::Batch& batch);

    int set_read_batch(std::uint32_t most) noexcept override;
    int may_send() const noexcept override;
    std::uint32_t marks() const noexcept override;
    int resume(std::uint32_t marks) noexcept override;

private:
    bool positionless() const noexcept { return mode_.reads && mode_.writes; }
    using Read = MessageStyle::Read;
    // The message delivered last, as this open file shows it.
    struct Current {
        queue::MessageRef message;
        FrameHeader header;                       // framed only
        std::vector<queue::MessageRef> more;      // of a batch, with
        std::shared_ptr<const std::string> text;  // all its frames
        std::uint64_t base = 0;                   // file position of its first byte
        std::uint64_t size = 0;                   // bytes as shown
        std::uint64_t done = 0;                   // how far into it the last read came
        bool one_taken = false;                   // kOne: it has had its message
    };

    void adopt(queue::MessageRef message, std::uint64_t offset, std::size_t size, Delivery& to);
    bool refuses(queue::MessageRef& message, Delivery& to) noexcept;
    void gather(Current& current, std::size_t room);
    void settle_one(queue::Message& message) noexcept;
    void fill(const Current& current, std::uint64_t from, std::size_t size, Delivery& to) const;
    int parse(const WriteRequest& request, queue::Batch& batch);
    int parse_frames(const WriteRequest& request, access::Account& account, queue::Batch& batch);
    int lend(const FrameView& frame, const access::Subject& sender, queue::Message& message);

    // On a topic, a reader's own subscription.
    std::shared_ptr<channel::Endpoint> subscription_;
    channel::Endpoint& source_;  // what is read comes from here
    const MessageStyle style_;
    const pid_t opener_;
    payload::Store& payloads_;
    std::atomic<std::uint32_t> read_batch_{0};
    channel::PollSlot poll_slot_;
    mutable std::mutex mutex_;
    Current current_;
    bool torn_ =
        false;  // the rest of a message was lost with the previous daemon; the next read fails once
};

}  // namespace ipcfs::tree
