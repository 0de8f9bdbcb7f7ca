// The notify file. Any thread; its own lock, inside which nothing is called.
#include <algorithm>
#include <poll.h>

#include <access/guard.hpp>
#include <tree/listeners.hpp>
#include <tree/notify_file.hpp>

namespace ipcfs::tree {

using channel::Event;
using channel::EventKind;

// Stands in the hub for the open file, weakly.
class NotifyFile::Listener final : public channel::EventListener {
public:
    explicit Listener(std::weak_ptr<NotifyFile> file) : file_(std::move(file)) {}
    bool on_event(const Event& event) noexcept override {
        auto file = file_.lock();
        return file && file->on_event(event);
    }
    bool alive() const noexcept override { return !file_.expired(); }

private:
    std::weak_ptr<NotifyFile> file_;
};

Result<std::shared_ptr<NotifyFile>> NotifyFile::open(
    const std::shared_ptr<channel::Endpoint>& channel, OpenMode mode,
    const access::Subject& subject) {
    access::Account& account = channel->account(subject.uid);
    auto charge = charge_open(account);
    if (!charge) return charge.error();
    if (channel->removed()) return Fault{EPIPE, "open: the channel is gone"};
    auto file = std::make_shared<NotifyFile>(channel, mode, account, std::move(*charge));
    if (mode.reads) {
        file->listener_ = std::make_shared<Listener>(file);
        channel->events().add(file->listener_);
    }
    return file;
}

NotifyFile::NotifyFile(std::shared_ptr<channel::Endpoint> channel, OpenMode mode,
                       access::Account& account, access::Charge charge)
    : channel_(std::move(channel)), mode_(mode), account_(account), charge_(std::move(charge)) {}

NotifyFile::~NotifyFile() {
    if (listener_) channel_->events().remove(listener_.get());
}

// Under the lock. False if the event is not kept.
bool NotifyFile::buffer(const Event& event) {
    if (!filter_.matches(event)) return false;
    if (!rate_.admits(event, filter_)) {
        ++lost_;
        return false;
    }
    if (events_.size() >= kBuffered) {
        auto least = std::min_element(
            events_.begin(), events_.end(),
            [](const Event& a, const Event& b) { return a.priority < b.priority; });
        ++lost_;
        if (least->priority > event.priority) return false;
        events_.erase(least);
    }
    // Two threads may publish at once: keep the order of the numbers.
    auto at = events_.end();
    while (at != events_.begin() && std::prev(at)->sequence > event.sequence) --at;
    events_.insert(at, event);
    return true;
}

bool NotifyFile::on_event(const Event& event) noexcept {
    queue::WaiterList served;
    std::unique_ptr<channel::PollTicket> ticket;
    {
        std::scoped_lock hold(mutex_);
        bool buffered = buffer(event);
        if (event.kind == EventKind::kRemoved && event.type == 0 && channel_->removed()) {
            gone_ = true;
        }
        if (!buffered && !gone_) return true;
        while (!waiting_.empty() && (gone_ || !events_.empty())) {
            auto& reader = static_cast<ReadOperation&>(waiting_.front());
            waiting_.pop_front();
            reader.parked = false;
            if (!events_.empty()) reader.text = next_line();
            reader.why = reader.text ? queue::Wake::kServed : queue::Wake::kRemoved;
            served.push_back(reader);
        }
        ticket = std::move(ticket_);
    }
    while (!served.empty()) {
        queue::Waiter& reader = served.front();
        served.pop_front();
        reader.finish();
    }
    if (ticket) ticket->notify();
    return true;
}

// Under the lock; there is an event or something was lost.
std::shared_ptr<const std::string> NotifyFile::next_line() {
    if (lost_ > 0) {
        Event overflow;
        if (!events_.empty()) overflow = events_.front();
        overflow.kind = EventKind::kOverflow;
        overflow.priority = 255;
        overflow.detail = std::exchange(lost_, 0);
        return std::make_shared<const std::string>(overflow.text());
    }
    auto line = std::make_shared<const std::string>(events_.front().text());
    events_.pop_front();
    return line;
}

// Under the lock.
void NotifyFile::show(std::shared_ptr<const std::string> text, const ReadRequest& request,
                      Delivery& to) {
    current_ = std::move(text);
    base_ = positionless() ? 0 : request.offset;
    done_ = std::min(request.size, current_->size());
    to.text = current_;
    to.parts[0] = std::as_bytes(std::span(*current_)).subspan(0, done_);
}

Outcome NotifyFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    std::scoped_lock hold(mutex_);
    if (current_) {
        std::uint64_t from = positionless() ? done_ : request.offset - base_;
        if ((positionless() || request.offset >= base_) && from < current_->size()) {
            auto rest = std::as_bytes(std::span(*current_)).subspan(from);
            to.text = current_;
            to.parts[0] = rest.subspan(0, std::min(request.size, rest.size()));
            done_ = from + to.parts[0].size();
            return Outcome::kDone;
        }
    }
    if (!events_.empty()) {
        show(next_line(), request, to);
        return Outcome::kDone;
    }
    if (gone_ || channel_->removed()) return Outcome::kDone;
    if (!request.nonblocking) return Outcome::kWait;
    to.error = EAGAIN;
    return Outcome::kDone;
}

void NotifyFile::start_read(ReadOperation& operation) noexcept {
    {
        std::scoped_lock hold(mutex_);
        if (!operation.cancelled && events_.empty() && !gone_ && !channel_->removed()) {
            operation.parked = true;
            waiting_.push_back(operation);
            return;
        }
        operation.why = queue::Wake::kRemoved;
        if (operation.cancelled) {
            operation.why = queue::Wake::kInterrupted;
        } else if (!events_.empty()) {
            operation.why = queue::Wake::kServed;
            operation.text = next_line();
        }
    }
    operation.finish();
}

void NotifyFile::cancel_read(ReadOperation& operation, queue::Wake why) noexcept {
    {
        std::scoped_lock hold(mutex_);
        operation.cancelled = true;
        if (!operation.parked) return;
        operation.parked = false;
        waiting_.erase(waiting_.iterator_to(operation));
        operation.why = why;
    }
    operation.finish();
}

void NotifyFile::finish_read(ReadOperation& operation, Delivery& to) noexcept {
    if (operation.why == queue::Wake::kServed) {
        std::scoped_lock hold(mutex_);
        return show(std::move(operation.text), operation.request(), to);
    }
    to.error = operation.error();
}

Outcome NotifyFile::try_write(const WriteRequest& request, queue::Batch&, int& error) noexcept {
    const std::string_view text = request.text();
    Result<void> done;
    if (text.size() > 4096) {
        done = Fault{EINVAL, "notify: more than 4096 bytes"};
    } else if (text.starts_with("signal")) {
        if (!access::may_register_signal(account_.uid(), request.subject.uid)) {
            done = Fault{EPERM, "notify: signal: the file was opened by another user"};
        } else {
            done = register_signal(*channel_, text, request.subject, account_);
        }
    } else if (auto filter = channel::parse_filter(text); filter) {
        std::scoped_lock hold(mutex_);
        filter_ = *filter;
        std::erase_if(events_, [&](const Event& event) { return !filter_.matches(event); });
    } else {
        done = filter.error();
    }
    if (done) was_written_.store(true, std::memory_order_relaxed);
    error = done ? 0 : done.error().code;
    if (!done) channel_->note_error(done.error().operation);
    return Outcome::kDone;
}

unsigned NotifyFile::poll(std::unique_ptr<channel::PollTicket> ticket) noexcept {
    std::unique_ptr<channel::PollTicket> old;
    std::scoped_lock hold(mutex_);
    if (ticket) {
        old = std::move(ticket_);
        ticket_ = std::move(ticket);
    }
    unsigned ready = mode_.writes ? POLLOUT : 0U;
    if (mode_.reads && (!events_.empty() || (current_ && done_ < current_->size()))) {
        ready |= POLLIN;
    }
    if (gone_ || channel_->removed()) ready |= POLLIN | POLLHUP;
    return ready;
}

std::optional<access::Charge> NotifyFile::charge_waiter() noexcept {
    return access::Charge::take(account_, access::Resource::kWaiters, 1);
}

}  // namespace ipcfs::tree
