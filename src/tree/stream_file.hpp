// An open `stream` of a channel of type stream: bytes without boundaries, as through a FIFO. A read gives
// what there is, of as many messages as fit; end of file when the last writer has closed. What is left
// of a message when its reader closes goes back to the front. No position. Any thread; its own short
// lock guards what is left.
#pragma once

#include <deque>
#include <mutex>

#include <tree/message_file.hpp>

namespace ipcfs::tree {

class StreamFile final : public SendingFile {
public:
    // EPIPE when the channel is gone, EDQUOT over the user's limit of open files.
    static Result<std::shared_ptr<StreamFile>> open(std::shared_ptr<channel::Endpoint> channel,
                                                    OpenMode mode, const access::Subject& subject);
    StreamFile(Entry entry, std::uint64_t since);
    ~StreamFile() override;

    Traits traits() const noexcept override { return {.is_positionless = true}; }
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    void settle(Delivery& delivery, bool sent) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override;
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override;
    // Nothing of it outlives the daemon.
    std::uint32_t marks() const noexcept override { return kTouched; }

private:
    // A message from byte `from` on.
    struct Piece {
        queue::MessageRef message;
        std::size_t from = 0;
        std::size_t size() const noexcept { return message->body().size() - from; }
    };
    using Pieces = std::deque<Piece>;

    channel::StreamView view() const noexcept;
    channel::Take gather(Pieces& pieces, std::size_t size) noexcept;
    void deliver(Pieces pieces, std::size_t size, Delivery& to) noexcept;
    void keep(Pieces rest) noexcept;

    channel::PollSlot poll_slot_;
    mutable std::mutex mutex_;
    channel::StreamView view_;
    Pieces rest_;  // taken and not read yet
};

}  // namespace ipcfs::tree
