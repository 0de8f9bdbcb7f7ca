#include <algorithm>
#include <linux/fuse.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <utility>

#include <fuse/backing.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

using Caching = tree::Traits::Caching;
using tree::NodeId;
using tree::OpenFile;

namespace {

// Files on hugetlbfs cannot be mapped through another file's descriptor.
bool on_huge_pages(int file) noexcept {
    struct statfs about {};
    return ::fstatfs(file, &about) == 0 && about.f_type == HUGETLBFS_MAGIC;
}

}  // namespace

class Backings::Node {
public:
    Node(Backings& owner, Session& session, std::uint64_t raw)
        : owner_(owner), session_(session), raw_(raw) {}
    ~Node() {
        if (id_) session_.close_backing(id_);
        owner_.forget(raw_);
    }
    Node(const Node&) = delete;
    Node& operator=(const Node&) = delete;

    // Decided once: two opens must not both register the memory.
    OpenAnswer join(const std::shared_ptr<OpenFile>& file, const tree::Traits& traits) {
        std::scoped_lock hold(mutex_);
        OpenAnswer answer;
        const bool first = !std::exchange(decided_, true);
        if (first) decide(file, traits);
        answer.flags = flags_;
        answer.backing = id_;
        answer.source = source_;
        if (cached_ && (!first || keeps_)) answer.flags |= FOPEN_KEEP_CACHE;
        return answer;
    }

    void restore(const std::shared_ptr<OpenFile>& file, std::uint32_t flags, std::int32_t backing) {
        std::scoped_lock hold(mutex_);
        if (std::exchange(decided_, true)) return;
        flags_ = flags & (FOPEN_DIRECT_IO | kOpenPassthrough);
        id_ = backing;
        cached_ = flags_ == 0;
        if (cached_ && file->traits().caching == Caching::kConstant) source_ = file;
    }

private:
    void decide(const std::shared_ptr<OpenFile>& file, const tree::Traits& traits) {
        const auto& backing = traits.backing;
        if (backing && session_.report().passthrough && !on_huge_pages(backing->file)) {
            if (auto id = session_.open_backing(backing->file)) {
                id_ = *id;
                flags_ = kOpenPassthrough | (backing->whole ? 0 : FOPEN_DIRECT_IO);
                return;
            }
        }
        cached_ = traits.caching != Caching::kNone;
        if (!cached_) {
            flags_ = FOPEN_DIRECT_IO;
        } else if (traits.caching == Caching::kConstant) {
            // Pages that an earlier open left are right only if all opens show the same memory, as
            // what could be backed does.
            keeps_ = backing.has_value();
            if (!keeps_) source_ = file;
        }
    }

    Backings& owner_;
    Session& session_;
    const std::uint64_t raw_;
    std::mutex mutex_;
    bool decided_ = false;
    std::uint32_t flags_ = 0;
    std::int32_t id_ = 0;
    bool cached_ = false;
    bool keeps_ = false;
    std::shared_ptr<OpenFile> source_;
};

void Backings::forget(std::uint64_t raw) noexcept {
    nodes_.with([raw](Nodes& nodes) {
        const auto at = nodes.find(raw);
        if (at != nodes.end() && at->second.expired()) nodes.erase(at);
    });
}

Backings::Use Backings::find(Session& session, NodeId node, bool if_free) {
    const std::uint64_t raw = node.raw();
    auto fresh = std::make_shared<Node>(*this, session, raw);
    // `fresh` is destroyed outside the lock, which its destructor takes.
    return nodes_.with([&](Nodes& nodes) -> Use {
        std::weak_ptr<Node>& known = nodes[raw];
        if (if_free && !known.expired()) return nullptr;  // not lock(): it could be the last to go
        if (auto there = known.lock()) return there;
        known = fresh;
        return fresh;
    });
}

Backings::Use Backings::claim(Session& session, NodeId put, pid_t tid) {
    if (auto use = find(session, put, true)) return use;
    const Nanos now = SystemClock().monotonic();
    refusals_.with([&](std::vector<Refusal>& refusals) {
        std::erase_if(refusals, [&](const Refusal& each) {
            return each.tid == tid || now - each.when > kRetryWithin;
        });
        refusals.push_back({tid, now});
    });
    return nullptr;
}

bool Backings::aside(NodeId put, pid_t tid) {
    const bool busy = nodes_.with([&](Nodes& nodes) {
        const auto at = nodes.find(put.raw());
        return at != nodes.end() && !at->second.expired();
    });
    if (busy) return true;
    return refusals_.with([&](const std::vector<Refusal>& refusals) {
        if (refusals.empty()) return false;
        const Nanos now = SystemClock().monotonic();
        return std::any_of(refusals.begin(), refusals.end(), [&](const Refusal& each) {
            return each.tid == tid && now - each.when <= kRetryWithin;
        });
    });
}

void Backings::settled(pid_t tid) {
    refusals_.with([tid](std::vector<Refusal>& refusals) {
        std::erase_if(refusals, [tid](const Refusal& each) { return each.tid == tid; });
    });
}

Backings::Use Backings::restore(Session& session, NodeId node,
                                const std::shared_ptr<OpenFile>& file, std::uint32_t flags,
                                std::int32_t backing) {
    if ((flags & FOPEN_DIRECT_IO) && !backing) return nullptr;  // a plain open fits any other
    Use use = find(session, node, false);
    use->restore(file, flags, backing);
    return use;
}

Backings::OpenAnswer Backings::open(Session& session, NodeId node,
                                    const std::shared_ptr<OpenFile>& file,
                                    const tree::Traits& traits, Use claimed) {
    OpenAnswer answer;
    answer.flags = FOPEN_DIRECT_IO;
    // Nothing that could collide.
    if (!claimed && tree::aside(node)) return answer;
    if (!traits.backing && traits.caching == Caching::kNone) return answer;
    Use use = claimed ? std::move(claimed) : find(session, node, false);
    answer = use->join(file, traits);
    answer.use = std::move(use);
    if (answer.backing) file->backed();
    return answer;
}

}  // namespace ipcfs::fuse
