// Any thread.
#include <new>

#include <tree/pushing.hpp>

namespace ipcfs::tree {
namespace {

using channel::Push;
using queue::Wake;

// Waits by itself.
class Detached final : public queue::WriteWaiter {
public:
    void finish() noexcept override {
        std::unique_ptr<Detached> self(this);
        const int error = error_of(why, EINTR, false);
        if (error) batch.withdraw();
        batch.clear();
        done(error);
    }

    std::function<void(int)> done;
};

}  // namespace

int error_of(Push push) noexcept {
    switch (push) {
        case Push::kQueued: return 0;
        case Push::kFull: return ENOBUFS;
        case Push::kTooLong: return EMSGSIZE;
        case Push::kRemoved: return EPIPE;
        case Push::kNoSpace: return ENOSPC;
        case Push::kDiskFailed: return EIO;
        case Push::kWait:
        case Push::kCommit: break;
    }
    return EAGAIN;
}

int error_of(Wake why, int cancelled, bool is_sync) noexcept {
    switch (why) {
        case Wake::kServed: return 0;
        case Wake::kRemoved: return EPIPE;
        case Wake::kTimedOut: return is_sync ? ETIMEDOUT : EAGAIN;
        case Wake::kInterrupted: return cancelled;
        case Wake::kShutdown: return ENOTCONN;
        case Wake::kPurged: return is_sync ? ECANCELED : ENOBUFS;
        case Wake::kNoSpace: return ENOSPC;
        case Wake::kDiskFailed: return EIO;
        case Wake::kEnded: break;  // of readers
    }
    return EIO;
}

void push_detached(const std::shared_ptr<channel::Endpoint>& channel, queue::Batch batch,
                   std::function<void(int error)> done) noexcept {
    const Push push = channel->try_push(batch, queue::Via::kOther, false, nullptr);
    if (push != Push::kCommit) {
        if (push != Push::kQueued) batch.withdraw();
        return done(error_of(push));
    }
    auto* waiter = new (std::nothrow) Detached;
    if (!waiter) {
        batch.withdraw();
        return done(ENOMEM);
    }
    waiter->done = std::move(done);
    waiter->batch = std::move(batch);
    waiter->via = queue::Via::kOther;
    channel->push(*waiter, nullptr);
}

}  // namespace ipcfs::tree
