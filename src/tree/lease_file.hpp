// An open `lease`: takes one message after the other on trial. A read takes the next message and gives its bytes, then
// end of file, until the holder settles it by a write: `ack`, `nack [DELAY]`, `extend DURATION` or `dead`. At a close
// without that the message goes back. If its time has run out, that write fails (ESTALE), so a read never mixes two
// messages. Any thread; its own short lock guards the message.
#pragma once

#include <mutex>
#include <string_view>

#include <tree/channel_file.hpp>

namespace ipcfs::tree {

class LeaseFile final : public ChannelFile {
public:
    // EPIPE when the channel is gone, EDQUOT over the user's limit of open files.
    static Result<std::shared_ptr<LeaseFile>> open(std::shared_ptr<channel::Endpoint> channel,
                                                   bool framed, OpenMode mode,
                                                   const access::Subject& subject);
    LeaseFile(Entry entry, bool framed, bool writes, pid_t opener);
    ~LeaseFile() override;

    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    void settle(Delivery& delivery, bool sent) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override;
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override;
    std::uint32_t marks() const noexcept override;
    int resume(std::uint32_t marks) noexcept override;

private:
    struct Current {
        std::uint64_t lease = 0;    // 0: none
        queue::MessageRef message;  // only what never changes of it may be looked at
        FrameHeader header;         // framed only
        std::uint64_t base = 0;     // file position of its first byte
        std::uint64_t size = 0;     // bytes as shown
        std::uint64_t done = 0;     // how far into it the last read came
    };
    struct Order {
        enum class Word : std::uint8_t { kAck, kNack, kExtend, kDead } word = Word::kAck;
        Nanos time = 0;
    };
    static std::optional<Order> parse(std::string_view text) noexcept;

    pid_t holder() const noexcept;
    void adopt(queue::MessageRef message, const queue::Leased& lease, const ReadRequest& request,
               Delivery& to) noexcept;
    bool refuses(const queue::Message& message, const queue::Leased& lease, Delivery& to) noexcept;
    int obey(const Order& order) noexcept;

    const bool framed_;
    const bool writes_;
    const pid_t opener_;
    channel::PollSlot poll_slot_;

    mutable std::mutex mutex_;
    Current current_;
    bool taking_ = false;  // a read is about to take one
    bool torn_ = false;    // the rest of a message was lost with the previous daemon
    bool lost_ = false;    // and so was the lease
    // Kept here while a message is held: only the end of the lease makes the file readable again.
    std::unique_ptr<channel::PollTicket> ticket_;
};

}  // namespace ipcfs::tree
