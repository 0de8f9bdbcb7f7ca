// An open `put`: what is written between open and close is one message. The bytes go into a memory
// file, past the daemon where the door can do that (Traits::backing); the close seals it and enqueues it.
//
// FLUSH comes at every close of a descriptor, also of those that a shell or a child inherited. The message is made at
// the close after which neither the process that opened the file nor its descendants have a descriptor of it left; at
// the latest by the destructor, but then nobody gets an error. What a process killed by a signal wrote is dropped.
// Any thread.
#pragma once

#include <mutex>

#include <payload/payload.hpp>

#include <base/timer_queue.hpp>
#include <tree/channel_file.hpp>
#include <tree/file_kind.hpp>

namespace ipcfs::tree {

class PutFile final : public SendingFile, public std::enable_shared_from_this<PutFile> {
public:
    // EPIPE, EDQUOT as a message file; ENOSPC when memory is short already.
    static Result<std::shared_ptr<PutFile>> open(std::shared_ptr<channel::Endpoint> channel,
                                                 NodeId node, bool framed, OpenMode mode,
                                                 const access::Subject& subject,
                                                 payload::Store& payloads, TimerQueue& timers,
                                                 const Clock& clock);
    PutFile(Entry entry, NodeId node, bool framed, const access::Subject& opener,
            payload::Store& payloads, TimerQueue& timers, const Clock& clock, Fd memory);
    ~PutFile() override;

    Traits traits() const noexcept override;
    void backed() noexcept override;
    std::uint32_t marks() const noexcept override;

    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    Outcome try_flush(const access::Subject& by, bool nonblocking, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;

private:
    // Looks every few milliseconds at what clients write past the daemon.
    class Watcher;

    enum class State : std::uint8_t { kFilling, kDone, kSpoiled };

    int accept(const WriteRequest& request);
    std::uint64_t end() const noexcept;
    int grow(std::uint64_t size);
    int write_frame(std::span<const std::byte> data, std::uint64_t at);
    int store(std::span<const std::byte> data, std::uint64_t at);
    bool look() noexcept;
    int spoil(int error, std::string why) noexcept;
    int make_message(queue::Batch& batch);
    Result<queue::MessageRef> message_of(std::uint64_t size);

    const NodeId node_;  // as fdinfo has it
    const bool is_aside_;
    const access::Subject opener_;
    const bool framed_;
    payload::Store& payloads_;
    TimerQueue& timers_;
    const Clock& clock_;
    channel::PollSlot poll_slot_;

    mutable std::mutex mutex_;
    State state_ = State::kFilling;
    int error_ = 0;  // of a spoiled one
    Fd memory_;
    bool backed_ = false;
    bool killed_ = false;     // a writer died of a signal
    std::uint64_t size_ = 0;  // highest byte written, as charged
    std::vector<access::Charge> charges_;
    std::vector<std::byte> head_;  // framed: header and extensions, until they are whole
    std::optional<FrameHeader> header_;
    std::shared_ptr<Watcher> watcher_;
};

}  // namespace ipcfs::tree
