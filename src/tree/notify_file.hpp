// An open `notify`: the channel's events since the open as text lines, one a read. A slow reader loses the least urgent
// events first and learns how many. A write sets the filter of this open file, or registers a signal for the writing
// process. Any thread.
#pragma once

#include <deque>
#include <mutex>

#include <base/fd.hpp>
#include <tree/operation.hpp>

namespace ipcfs::tree {

// How many events came in this second. Any thread.
class EventRate {
public:
    // Counts it. False: it is more than the filter lets through in a second.
    bool admits(const channel::Event& event, const channel::EventFilter& filter) noexcept {
        if (filter.rate == 0) return true;
        const auto second = static_cast<std::uint64_t>(event.time / kSecond);
        if (second_.exchange(second, std::memory_order_relaxed) != second) count_ = 0;
        return count_.fetch_add(1, std::memory_order_relaxed) < filter.rate;
    }

private:
    std::atomic<std::uint64_t> second_{0}, count_{0};
};

class NotifyFile final : public WaitingFile, public std::enable_shared_from_this<NotifyFile> {
public:
    static Result<std::shared_ptr<NotifyFile>> open(
        const std::shared_ptr<channel::Channel>& channel, OpenMode mode,
        const access::Subject& subject);
    NotifyFile(std::shared_ptr<channel::Channel> channel, OpenMode mode, access::Account& account,
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

    std::shared_ptr<channel::Channel> channel_;
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

// `signal SIGUSR1 [filter]`: registers the process of `subject`. EINVAL, EPERM (SIGKILL, SIGSTOP),
// ESRCH where the process is not visible, EDQUOT.
Result<std::shared_ptr<channel::EventListener>> make_signal(channel::Channel& channel,
                                                            std::string_view text,
                                                            const access::Subject& subject,
                                                            access::Account& account);
Result<void> register_signal(channel::Channel& channel, std::string_view text,
                             const access::Subject& subject, access::Account& account);

}  // namespace ipcfs::tree
