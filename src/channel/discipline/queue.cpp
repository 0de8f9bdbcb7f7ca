// Types queue and batch: first in first out by priority, with room up to the high mark, and a reserve above it for
// critical messages. Also what other types do where they say nothing else.
#include <channel/discipline.hpp>

namespace ipcfs::channel {

bool Discipline::has_to_wait(const queue::Batch& batch, bool was_waiting) const noexcept {
    if (flow().paused() && !batch.critical) return true;
    return !was_waiting && waiters().are_ahead_of(batch.critical);
}

Discipline::Admission Discipline::admit(Locked&, const queue::Batch& batch,
                                        bool was_waiting) noexcept {
    // A reader that waits takes it at once: no room is needed, and nobody can be ahead. What is leased needs
    // room.
    if (backlog().empty() && waiters().can_take(batch.count) && !backlog().gated()) {
        return Admission::kEnter;
    }
    const bool is_blocking = blocks();
    if (is_blocking && has_to_wait(batch, was_waiting)) return Admission::kWait;
    if (flow().fits(batch)) return Admission::kEnter;
    return is_blocking ? Admission::kPause : Admission::kOverflow;
}

bool Discipline::is_writable(bool critical) const noexcept {
    if (critical && flow().reserve_has_room()) return !waiters().has_critical_writers();
    switch (settings().overflow) {
        case Overflow::kBlock:
            return !flow().paused() && !waiters().has_writers() && !flow().over_high(1, 1);
        case Overflow::kReject: return !flow().over_high(1, 1);
        default: return true;
    }
}

std::unique_ptr<Discipline> make_discipline(Type type, Channel& channel) {
    using Make = std::unique_ptr<Discipline> (*)(Channel&);
    static constexpr Make kTypes[] = {
#define IPCFS_ROW(value, name, make) make,
        IPCFS_CHANNEL_TYPES(IPCFS_ROW)
#undef IPCFS_ROW
    };
    return kTypes[static_cast<std::size_t>(type)](channel);
}

std::unique_ptr<Discipline> make_queue(Channel& channel) {
    return std::make_unique<Discipline>(channel);
}

}  // namespace ipcfs::channel
