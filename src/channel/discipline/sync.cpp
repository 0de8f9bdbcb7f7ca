// Type sync: a write ends when its messages are taken. Opens for writing take turns; a nonblocking write needs
// readers that wait.
#include <channel/discipline.hpp>

namespace ipcfs::channel {
namespace {

class Sync final : public Discipline {
public:
    using Discipline::Discipline;
    Admission admit(Locked&, const queue::Batch& batch, bool) noexcept override {
        const bool is_taken =
            batch.is_nonblocking && backlog().empty() && waiters().readers() >= batch.count;
        return is_taken ? Admission::kTake : Admission::kWait;
    }
    bool meets() const noexcept override { return true; }
    bool is_writable(bool) const noexcept override { return waiters().has_readers(); }
};

}  // namespace

std::unique_ptr<Discipline> make_sync(Channel& channel) {
    return std::make_unique<Sync>(channel);
}

}  // namespace ipcfs::channel
