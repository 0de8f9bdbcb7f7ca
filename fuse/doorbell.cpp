// ring(), hide() and refresh() run on any thread; what they add, on the executors' own.

#include <chrono>
#include <future>

#include <fuse/doorbell.hpp>
#include <tree/node.hpp>

namespace ipcfs::fuse {

Doorbell::Doorbell(std::string mountpoint, channel::Registry& registry, Session& session)
    : mountpoint_(std::move(mountpoint)), registry_(registry), session_(session) {}

Doorbell::~Doorbell() {
    stop();
}

Result<void> Doorbell::start() {
    if (auto forked = process_.start(); !forked) return forked;
    is_open_ = true;
    return {};
}

void Doorbell::stop() noexcept {
    is_open_ = false;
    ringing_.drop();
    refreshing_.drop();
}

uid_t Doorbell::owner_of(std::uint64_t channel) const noexcept {
    uid_t owner = 0;
    registry_.read(
        channel, static_cast<std::uint8_t>(tree::Kind::kChannel),
        [](const channel::Attributes& made) { return made; },
        [&](const channel::Attributes& attributes) { owner = attributes.uid; });
    return owner;
}

void Doorbell::ring(channel::Channel& channel, Target target) noexcept {
    // One that is pending has not been performed: it will tell of this arrival too.
    if (channel.bell_pending.exchange(true, std::memory_order_acq_rel)) return;
    if (!is_open_) return channel.bell_pending.store(false, std::memory_order_release);
    const Nanos gap = kSecond / static_cast<Nanos>(channel.settings().notify_rate);
    const Nanos due = channel.last_ring.load(std::memory_order_relaxed) + gap;
    ringing_.add(
        owner_of(channel.id()),
        [this, kept = channel.shared_from_this(), target] { ring_now(*kept, target); }, due);
}

void Doorbell::hide(const std::shared_ptr<channel::Endpoint>& channel,
                    const std::vector<std::string>& names, bool at_once) noexcept {
    if (!is_open_) return;
    refresh(tree::NodeId{channel->id(), tree::Kind::kChannel}.raw());
    if (names.empty()) return;
    const uid_t owner = owner_of(channel->id());
    const bool soon = !ringing_.is_busy(owner);
    auto done = std::make_shared<std::promise<void>>();  // broken where the job is dropped
    auto hidden = done->get_future();
    ringing_.add(owner, [this, channel, names, done] {
        for (const std::string& name : names) {
            const std::string path = registry_.path(channel->id());
            if (path.empty()) break;
            // ENOENT in the end, unless the channel has been given another type again.
            (void)process_.ring(mountpoint_ + "/" + path + "/" + name);
        }
        done->set_value();
    });
    done.reset();
    constexpr std::chrono::milliseconds kPatience{100};  // a client may hold a lock
    if (at_once && soon) hidden.wait_for(kPatience);
}

void Doorbell::refresh(channel::Channel& channel) noexcept {
    refresh(tree::NodeId{channel.id(), tree::Kind::kQueue}.raw());
}

void Doorbell::refresh(std::uint64_t node) noexcept {
    if (is_open_)
        refreshing_.add(0, [this, node] { (void)session_.notify_inval_inode(node, -1, 0); });
}

void Doorbell::ring_now(channel::Channel& channel, Target target) noexcept {
    channel.last_ring.store(SystemClock().monotonic(), std::memory_order_relaxed);
    // From here on an arrival asks for another ring.
    channel.bell_pending.store(false, std::memory_order_release);
    for (int attempt = 0; attempt < 3; ++attempt) {  // it may be renamed meanwhile
        std::string path = registry_.path(channel.id());
        if (path.empty()) break;
        path.insert(0, "/").insert(0, mountpoint_);
        const bool bytes = channel.settings().type == channel::Type::kStream;
        path.append(bytes ? "/stream" : target == Target::kQueue ? "/queue" : "/next");
        const int error = process_.ring(path);
        if (error == 0) {
            rung_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
        if (error != ENOENT) break;
    }
    failed_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace ipcfs::fuse
