// Under the lock of the channel that has it.
#include <channel/backlog.hpp>

namespace ipcfs::channel {

using queue::Envelope;
using queue::Message;
using queue::MessageRef;

MessageRef Backlog::remove(Message& message) noexcept {
    MessageRef out = queue_.remove(message);
    // Which ones were let out is a number only: the first ones.
    if (gated() && ready_ >= queue_.size()) {
        ready_ = queue_.size();
        holding_back_since_ = kNever;
    }
    return out;
}

std::vector<MessageRef> Backlog::everything() {
    std::vector<MessageRef> all;
    auto add = [&](Message& message) {
        all.emplace_back(&message);
        return true;
    };
    queue_.for_each(add);
    dead.for_each(add);
    leases.for_each(add);
    return all;
}

queue::MessageList Backlog::clear() noexcept {
    queue::MessageList all;
    const auto add = [&](MessageRef message) { all.push_back(*message.detach()); };
    queue_.for_each([&](Message& message) {
        add(remove(message));
        return true;
    });
    dead.for_each([&](Message& message) {
        add(dead.remove(message));
        return true;
    });
    for (MessageRef& message : leases.clear()) add(std::move(message));
    earliest_expiry_ = kNever;
    return all;
}

bool Backlog::set_gate(const BatchGate& gate) noexcept {
    ready_ = ready();
    gate_ = gate;
    if (gated() || ready_ == queue_.size()) return false;
    holding_back_since_ = kNever;
    return true;
}

bool Backlog::open_gate_if_due(Nanos now, std::uint64_t most) noexcept {
    if (!gated() || queue_.size() == ready_) return false;
    if (holding_back_since_ == kNever) holding_back_since_ = now;
    const std::uint64_t enough = std::min<std::uint64_t>(gate_.count, most);
    if (queue_.size() - ready_ < enough && holding_back_since_ + gate_.delay > now) return false;
    return open_gate();
}

bool Backlog::open_gate() noexcept {
    if (!gated() || queue_.size() == ready_) return false;
    ready_ = queue_.size();
    holding_back_since_ = kNever;
    return true;
}

}  // namespace ipcfs::channel
