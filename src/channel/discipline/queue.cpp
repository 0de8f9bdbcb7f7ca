// Types queue and batch: first in first out by priority, with room up to the high mark, and a reserve above it for
// critical messages. Also what other types do where they say nothing else.
#include <channel/discipline.hpp>

namespace ipcfs::channel {

bool Discipline::has_to_wait(const Batch& batch, bool was_waiting) const noexcept {
    if (core_.flow.paused() && !batch.critical) return true;
    return !was_waiting && core_.waiters.are_ahead_of(batch.critical);
}

Discipline::Admission Discipline::admit(Locked&, const Batch& batch, bool was_waiting) noexcept {
    // A reader that waits takes it at once: no room is needed, and nobody can be ahead. What is leased needs
    // room.
    if (core_.backlog.empty() && core_.waiters.can_take(batch.count) && !core_.backlog.gated()) {
        return Admission::kEnter;
    }
    const bool is_blocking = blocks();
    if (is_blocking && has_to_wait(batch, was_waiting)) return Admission::kWait;
    if (core_.flow.fits(batch)) return Admission::kEnter;
    return is_blocking ? Admission::kPause : Admission::kOverflow;
}

bool Discipline::is_writable(bool critical) const noexcept {
    if (critical && core_.flow.reserve_has_room()) return core_.waiters.writers.flagged() == 0;
    switch (core_.settings.overflow) {
        case Overflow::kBlock:
            return !core_.flow.paused() && core_.waiters.writers.empty() &&
                   !core_.flow.over_high(1, 1);
        case Overflow::kReject: return !core_.flow.over_high(1, 1);
        default: return true;
    }
}

std::unique_ptr<Discipline> make_discipline(Core& core) {
    using Make = std::unique_ptr<Discipline> (*)(Core&);
    static constexpr Make kTypes[] = {
#define IPCFS_ROW(value, name, make) make,
        IPCFS_CHANNEL_TYPES(IPCFS_ROW)
#undef IPCFS_ROW
    };
    return kTypes[static_cast<std::size_t>(core.settings.type)](core);
}

std::unique_ptr<Discipline> make_queue(Core& core) {
    return std::make_unique<Discipline>(core);
}

}  // namespace ipcfs::channel
