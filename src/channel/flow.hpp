// Whether more may come: the bounds and the marks that the settings set, the reserve above the high mark for
// critical messages, pauses, and the credits of opens at the gate. It tells nobody and has no lock of its own: the
// channel's is held around every call.
#pragma once

#include <algorithm>
#include <cstdint>

#include <boost/intrusive/list.hpp>

#include <base/clock.hpp>
#include <channel/backlog.hpp>
#include <channel/endpoint.hpp>
#include <channel/settings.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::channel {

class Flow {
public:
    // Of the channel that has these, too.
    Flow(const Settings& settings, const Backlog& backlog)
        : settings_(settings), backlog_(backlog) {}
    Flow(const Flow&) = delete;
    Flow& operator=(const Flow&) = delete;

    // ---- bounds and marks ----
    bool at_high() const noexcept {
        return backlog_.load() >= settings_.high_mark() ||
               backlog_.load_bytes() >= settings_.high_mark_bytes();
    }
    bool at_low() const noexcept {
        return backlog_.load() <= settings_.low_mark() &&
               backlog_.load_bytes() <= settings_.low_mark_bytes();
    }
    bool over_high(std::uint64_t more_messages, std::uint64_t more_bytes) const noexcept {
        return backlog_.load() + more_messages > settings_.high_mark() ||
               backlog_.load_bytes() + more_bytes > settings_.high_mark_bytes();
    }
    bool fits(const queue::BatchFigures& batch) const noexcept {
        if (batch.critical || backlog_.load() == 0) {
            return backlog_.load() + batch.count <= settings_.capacity &&
                   backlog_.load_bytes() + batch.bytes <= settings_.bytes;
        }
        return !over_high(batch.count, batch.bytes);
    }
    bool never_fits(const queue::Batch& batch) const noexcept {
        if (batch.count > settings_.capacity || batch.bytes > settings_.bytes) return true;
        return std::any_of(batch.messages.begin(), batch.messages.end(),
                           [this](const queue::Message& message) {
                               return message.body().size() > settings_.max_message;
                           });
    }
    bool reserve_has_room() const noexcept {
        return backlog_.load() < settings_.capacity && backlog_.load_bytes() < settings_.bytes;
    }

    // ---- pauses ----
    // The high mark was reached, the low one not yet.
    bool paused() const noexcept { return paused_; }
    void pause(Nanos now) noexcept {
        paused_ = true;
        paused_since_ = now;
    }
    void resume() noexcept { paused_ = false; }
    // `pause` was commanded, until `until` (0: until resume), or the daemon ends.
    bool held() const noexcept { return held_ || down_; }
    bool held_by_command() const noexcept { return held_; }
    void hold(Nanos now, Nanos until) noexcept {
        if (!held_) held_since_ = now;
        held_ = true;
        held_until_ = until;
    }
    void end_hold(Nanos now) noexcept {  // writers' time counts from now
        held_ = false;
        held_until_ = 0;
        if (paused_) paused_since_ = now;
    }
    Nanos held_until() const noexcept { return held_ && held_until_ > 0 ? held_until_ : kNever; }
    bool down() const noexcept { return down_; }
    void go_down() noexcept { down_ = true; }
    // When a writer that would have to wait now gives up.
    Nanos deadline() const noexcept {
        return (held_ ? held_since_ : paused_since_) + settings_.timeout;
    }

    // ---- the gate: an open that is let in has room until its first write, its close, or a second ----
    // Whether there is room for one more; if not, credit_end() says when to look again.
    bool has_credit() const noexcept {
        return credits_.empty() || backlog_.load() + credits_.size() < settings_.high_mark();
    }
    void give(WriteTicket& ticket, Nanos now) noexcept {
        ticket.since = now;
        ticket.held = true;
        credits_.push_back(ticket);
    }
    void release(WriteTicket& ticket) noexcept {
        if (!ticket.held) return;
        ticket.held = false;
        if (ticket.sync) {
            turn_ = nullptr;
            ticket.sync = false;
        } else {
            credits_.erase(credits_.iterator_to(ticket));
        }
    }
    void lapse(Nanos now) noexcept {
        while (credit_end() <= now) release(credits_.front());
    }
    Nanos credit_end() const noexcept {
        return credits_.empty() ? kNever : credits_.front().since + kCreditLife;
    }
    // Type sync: the turn, which one at a time has until its close.
    bool turn_is_free() const noexcept { return !turn_; }
    void give_turn(WriteTicket& ticket) noexcept {
        turn_ = &ticket;
        ticket.sync = ticket.held = true;
    }

private:
    static constexpr Nanos kCreditLife = kSecond;

    const Settings& settings_;
    const Backlog& backlog_;
    bool paused_ = false, held_ = false, down_ = false;
    Nanos paused_since_ = 0, held_since_ = 0, held_until_ = 0;
    boost::intrusive::list<WriteTicket, boost::intrusive::constant_time_size<false>>
        credits_;  // oldest first
    WriteTicket* turn_ = nullptr;
};

}  // namespace ipcfs::channel
