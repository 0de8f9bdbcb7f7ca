// Ringing. ring() and refresh() run on any thread; serve() on the doorbell's own.

#include <algorithm>

#include <fuse/doorbell.hpp>
#include <tree/node.hpp>

namespace ipcfs::fuse {

Doorbell::Doorbell(std::string mountpoint, channel::Registry& registry, Session& session)
    : mountpoint_(std::move(mountpoint)), registry_(registry), session_(session) {}

Doorbell::~Doorbell() {
    stop();
}

Result<void> Doorbell::start() {
    if (auto forked = ringer_.start(); !forked) return forked;
    std::scoped_lock hold(mutex_);
    stopping_ = false;
    refresher_ = std::thread([this] { serve_refreshes(); });
    threads_.emplace_back([this] { serve(0); });
    return {};
}

void Doorbell::stop() noexcept {
    std::vector<std::thread> threads;
    std::list<Task> dropped;
    {
        std::scoped_lock hold(mutex_);
        stopping_ = true;
        threads.swap(threads_);
        dropped.swap(tasks_);
    }
    changed_.notify_all();
    hidden_.notify_all();
    refresh_wanted_.notify_all();
    for (std::thread& thread : threads) thread.join();
    if (refresher_.joinable()) refresher_.join();
}

void Doorbell::ring(channel::Channel& channel, Target target) noexcept {
    // One that is pending has not been performed: it will tell of this arrival too.
    if (channel.bell_pending.exchange(true, std::memory_order_acq_rel)) return;
    Nanos gap = kSecond / static_cast<Nanos>(channel.settings().notify_rate);
    Nanos due = channel.last_ring.load(std::memory_order_relaxed) + gap;
    add(Task{channel.shared_from_this(), target, 0, due, {}, {}});
}

void Doorbell::hide(const std::shared_ptr<channel::Channel>& channel,
                    const std::vector<std::string>& names, bool at_once) noexcept {
    {
        std::scoped_lock hold(mutex_);
        if (stopping_) return;
        refreshes_.push_back(tree::NodeId{channel->id(), tree::Kind::kChannel}.raw());
    }
    refresh_wanted_.notify_one();
    if (names.empty()) return;
    auto done = std::make_shared<bool>(false);
    const bool soon = add(Task{channel, Target::kQueue, 0, 0, names, done});
    if (!at_once || !soon) return;
    std::unique_lock hold(mutex_);
    hidden_.wait_for(hold, kPatience, [&] { return *done || stopping_; });
}

void Doorbell::refresh(channel::Channel& channel) noexcept {
    {
        std::scoped_lock hold(mutex_);
        if (stopping_) return;
        refreshes_.push_back(tree::NodeId{channel.id(), tree::Kind::kQueue}.raw());
    }
    refresh_wanted_.notify_one();
}

void Doorbell::serve_refreshes() noexcept {
    std::vector<std::uint64_t> nodes;
    std::unique_lock hold(mutex_);
    while (!stopping_) {
        if (refreshes_.empty()) {
            refresh_wanted_.wait(hold);
            continue;
        }
        nodes.swap(refreshes_);
        hold.unlock();
        for (std::uint64_t node : nodes) (void)session_.notify_inval_inode(node, -1, 0);
        nodes.clear();
        hold.lock();
    }
}

bool Doorbell::add(Task task) noexcept {
    bool soon = false;
    registry_.read(
        task.channel->id(), static_cast<std::uint8_t>(tree::Kind::kChannel),
        [](const channel::Attributes& made) { return made; },
        [&](const channel::Attributes& attributes) { task.owner = attributes.uid; });
    {
        std::scoped_lock hold(mutex_);
        if (stopping_) {
            if (!task.done) task.channel->bell_pending.store(false, std::memory_order_release);
            return false;
        }
        soon = !busy_for_.contains(task.owner);
        tasks_.push_back(std::move(task));
        if (idle_ == 0 && threads_.size() < Ringer::kLines) {
            threads_.emplace_back([this, line = threads_.size()] { serve(line); });
        }
    }
    changed_.notify_one();
    return soon;
}

std::list<Doorbell::Task>::iterator Doorbell::pick(Nanos now, Nanos& look_again) {
    look_again = kNever;
    for (auto at = tasks_.begin(); at != tasks_.end(); ++at) {
        if (at->due > now) {
            look_again = std::min(look_again, at->due);
            continue;
        }
        auto busy = busy_for_.find(at->owner);
        if (busy == busy_for_.end() || busy->second < kMostForOwner) return at;
    }
    return tasks_.end();
}

void Doorbell::serve(std::size_t line) noexcept {
    SystemClock clock;
    std::unique_lock hold(mutex_);
    while (!stopping_) {
        Nanos look_again = kNever;
        Nanos now = clock.monotonic();
        auto at = pick(now, look_again);
        if (at == tasks_.end()) {
            ++idle_;
            if (look_again == kNever) {
                changed_.wait(hold);
            } else {
                changed_.wait_for(hold, std::chrono::nanoseconds(look_again - now));
            }
            --idle_;
            continue;
        }
        std::list<Task> mine;
        mine.splice(mine.begin(), tasks_, at);
        const Task& task = mine.front();
        ++busy_for_[task.owner];
        hold.unlock();
        perform(task, line);
        uid_t owner = task.owner;
        std::shared_ptr<bool> done = task.done;
        mine.clear();  // may free a channel
        hold.lock();
        if (done) {
            *done = true;
            hidden_.notify_all();
        }
        if (--busy_for_[owner] == 0) busy_for_.erase(owner);
        if (!tasks_.empty() && idle_ > 0) changed_.notify_one();
    }
}

void Doorbell::perform(const Task& task, std::size_t line) noexcept {
    if (!task.done) return perform_ring(task, line);
    for (const std::string& name : task.names) {
        std::string path = registry_.path(task.channel->id());
        if (path.empty()) return;
        // ENOENT in the end, unless the channel has been given another type again.
        (void)ringer_.ring(line, mountpoint_ + "/" + path + "/" + name);
    }
}

void Doorbell::perform_ring(const Task& task, std::size_t line) noexcept {
    channel::Channel& channel = *task.channel;
    channel.last_ring.store(SystemClock().monotonic(), std::memory_order_relaxed);
    // From here on an arrival asks for another ring.
    channel.bell_pending.store(false, std::memory_order_release);
    for (int attempt = 0; attempt < 3; ++attempt) {  // it may be renamed meanwhile
        std::string path = registry_.path(channel.id());
        if (path.empty()) break;
        path.insert(0, "/").insert(0, mountpoint_);
        const bool bytes = channel.settings().type == channel::Type::kStream;
        path.append(bytes ? "/stream" : task.target == Target::kQueue ? "/queue" : "/next");
        int error = ringer_.ring(line, path);
        if (error == 0) {
            rung_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        if (error != ENOENT) break;
    }
    failed_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace ipcfs::fuse
