// An open `notify`: the channel's events since the open as text lines, one a read. A slow reader loses the least urgent
// events first and learns how many. A write sets the filter of this open file, or registers a signal for the writing
// process. Any thread.
#pragma once

#include <deque>
#include <mutex>

#include <base/fd.hpp>
#include <tree/listeners.hpp>
#include <tree/operation.hpp>

namespace ipcfs::tree {

class NotifyFile final : public WaitingFile, public std::enable_shared_from_this<NotifyFile> {
public:
    static Result<std::shared_ptr<NotifyFile>> open(
        const std::shared_ptr<channel::Endpoint>& channel, OpenMode mode,
        const access::Subject& subject);
    NotifyFile(std::shared_ptr<channel::Endpoint> channel, OpenMode mode, access::Account& account,
               access::Charge charge);
    ~NotifyFile() override;

    Traits traits() const noexcept override { return {.is_positionless = positionless()}; }
    std::uint32_t marks() const noexcept override {
        return was_written_.load(std::memory_order_relaxed) ? kTouched : 0U;
    }
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override;
    void cancel_read(ReadOperation& operation, queue::Wake why) noexcept override;
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override;
    std::optional<access::Charge> charge_waiter() noexcept override;

    bool on_event(const channel::Event& event) noexcept;

    // The hub holds this, so that the file itself can go when the door lets go of it.
    class Listener;

private:
    bool positionless() const noexcept { return mode_.reads && mode_.writes; }
    static constexpr std::size_t kBuffered = 256;
    std::shared_ptr<const std::string> next_line();
    void show(std::shared_ptr<const std::string> text, const ReadRequest& request, Delivery& to);
    bool buffer(const channel::Event& event);

    std::shared_ptr<channel::Endpoint> channel_;
    const OpenMode mode_;
    access::Account& account_;
    access::Charge charge_;
    std::shared_ptr<Listener> listener_;

    std::atomic<bool> was_written_{false};  // a filter or a signal
    std::mutex mutex_;
    channel::EventFilter filter_;
    std::deque<channel::Event> events_;
    std::uint64_t lost_ = 0;
    EventRate rate_;
    bool gone_ = false;
    queue::WaiterList waiting_;
    std::unique_ptr<channel::PollTicket> ticket_;
    std::shared_ptr<const std::string> current_;  // the line delivered last
    std::uint64_t base_ = 0, done_ = 0;
};

}  // namespace ipcfs::tree
