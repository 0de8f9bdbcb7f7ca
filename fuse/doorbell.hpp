// The doorbell: inotify sees only what goes through the mount. So an arrival by any other way than a write on `queue`
// rings: it sets the mtime of `queue` by utimensat(2) through the daemon's own mount, which inotify reports as
// IN_MODIFY. That takes the inode's lock, which a client can hold for as long as it likes (a write from a page that
// faults for ever), so ringing has its own threads, at most two for each owner of channels, and its own process
// (bell_process.hpp). Coalesced: at most one ring is pending for a channel, and notify-rate bounds them; the
// last arrival is always rung.
//
// It also makes the client's kernel forget names of files that a channel does not show any more. FUSE's notifications
// for that would wait for a directory's lock, which clients can hold, too. So the same process touches each name: the
// kernel gets ESTALE, looks the name up again and finds nothing.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <base/executor.hpp>
#include <channel/registry.hpp>
#include <fuse/bell_process.hpp>
#include <fuse/session.hpp>

namespace ipcfs::fuse {

class Doorbell final : public channel::Doorbell {
public:
    // `mountpoint` is served by `session`. Rings from start() on.
    Doorbell(std::string mountpoint, channel::Registry& registry, Session& session);
    ~Doorbell() override;

    // Forks: the process must have no other thread yet.
    Result<void> start();
    // Rings nothing any more. After Session::stop(), so that no thread is inside the mount.
    // (start() comes before requests are served: a ring that finds no bell is lost.)
    void stop() noexcept;

    void ring(channel::Channel& channel, Target target) noexcept override;
    void refresh(channel::Channel& channel) noexcept override;
    // `names`: paths below the channel. With `at_once` it waits until they are gone, but not for long.
    void hide(const std::shared_ptr<channel::Endpoint>& channel,
              const std::vector<std::string>& names, bool at_once) noexcept;

    // Rings done, and rings that failed (the channel was gone, or access was denied).
    std::uint64_t rung() const noexcept { return rung_.load(std::memory_order_relaxed); }
    std::uint64_t failed() const noexcept { return failed_.load(std::memory_order_relaxed); }

private:
    static constexpr unsigned kMostForOwner = 2;

    uid_t owner_of(std::uint64_t channel) const noexcept;
    void refresh(std::uint64_t node) noexcept;
    void ring_now(channel::Channel& channel, Target target) noexcept;

    std::string mountpoint_;
    channel::Registry& registry_;
    Session& session_;
    BellProcess process_;
    std::atomic<bool> is_open_{false};
    std::atomic<std::uint64_t> rung_{0}, failed_{0};
    Executor ringing_{"ipcfs-doorbell",
                      {.threads = BellProcess::kLines,
                       .concurrency = BellProcess::kLines,
                       .user_jobs = kMostForOwner,
                       .timers = &registry_.environment().timers}};
    Executor refreshing_{"ipcfs-refresh", {}};
};

}  // namespace ipcfs::fuse
