// Names and attributes of channels. Any thread.
#include <algorithm>
#include <mutex>

#include <boost/unordered/unordered_flat_map.hpp>

#include <base/check.hpp>
#include <channel/registry.hpp>

namespace ipcfs::channel {

// What a look-up touches comes first, in one cache line.
struct alignas(64) Registry::Entry {
    struct Children {
        // Open addressing: with thousands of channels a look-up is a matter of cache misses. Keys are
        // the entries' own names.
        boost::unordered_flat_map<std::string_view, Entry*> by_name;
        std::map<std::uint64_t, Entry*> by_id;
    };
    std::string name;
    std::shared_ptr<Channel> channel;
    std::unique_ptr<Children> children;
    std::uint64_t id = 0;
    Entry* parent = nullptr;
    Attributes made;                                           // of the channel when it was made
    std::vector<std::pair<std::uint8_t, Attributes>> changed;  // files that differ
    access::Charge charge;
    bool going = false;  // being removed: nothing may be made in it

    bool empty() const { return !children || children->by_id.empty(); }
};

Registry::Registry(Environment& environment, const Settings& defaults, std::size_t prefix)
    : env_(environment), prefix_(prefix), defaults_(defaults), root_(std::make_unique<Entry>()) {
    root_->made.mode = 01777;
    root_->made.changed = environment.clock.realtime();
}

Registry::~Registry() = default;

Registry::Entry* Registry::entry(std::uint64_t id) const {
    if (id == kRootId) return root_.get();
    auto at = entries_.find(id);
    return at == entries_.end() ? nullptr : at->second;
}

std::string Registry::path_of(const Entry& entry) const {
    std::vector<const Entry*> up;
    for (const Entry* at = &entry; at->parent; at = at->parent) up.push_back(at);
    std::string path;
    for (auto at = up.rbegin(); at != up.rend(); ++at) {
        if (!path.empty()) path.push_back('/');
        path.append((*at)->name);
    }
    return path;
}

// The longest path below `entry`, without recursion: clients choose how deep the tree is.
std::size_t Registry::deepest(const Entry& entry) {
    std::size_t longest = 0;
    std::vector<std::pair<const Entry*, std::size_t>> open{{&entry, 0}};
    while (!open.empty()) {
        auto [at, length] = open.back();
        open.pop_back();
        longest = std::max(longest, length);
        if (!at->children) continue;
        for (const auto& [id, child] : at->children->by_id) {
            open.emplace_back(child, length + 1 + child->name.size());
        }
    }
    return longest;
}

void Registry::link(Entry& parent, Entry& child) {
    if (!parent.children) parent.children = std::make_unique<Entry::Children>();
    child.parent = &parent;
    parent.children->by_name.emplace(child.name, &child);
    parent.children->by_id.emplace(child.id, &child);
}

void Registry::unlink(Entry& child) {
    child.parent->children->by_name.erase(child.name);
    child.parent->children->by_id.erase(child.id);
    if (child.parent->empty()) child.parent->children.reset();
}

Result<std::shared_ptr<Channel>> Registry::create(std::uint64_t parent, std::string_view name,
                                                  Attributes attributes, access::Account& owner) {
    auto charge = access::Charge::take(owner, access::Resource::kChannels, 1);
    if (!charge) return Fault{EDQUOT, "mkdir: the user's limit of channels is reached"};
    auto made = std::make_unique<Entry>();
    made->name = name;
    made->made = std::move(attributes);
    made->charge = std::move(*charge);
    std::unique_lock hold(mutex_);
    Entry* above = entry(parent);
    if (!above || above->going || down_) return Fault{ENOENT, "mkdir: the parent is gone"};
    if (above->children && above->children->by_name.contains(name)) {
        return Fault{EEXIST, "mkdir"};
    }
    if (prefix_ + path_of(*above).size() + 1 + name.size() > kLongestPath) {
        return Fault{ENAMETOOLONG, "mkdir: the path would be too long"};
    }
    made->id = next_id_++;
    made->channel = std::make_shared<Channel>(env_, made->id, defaults_);
    Entry& added = *made;
    link(*above, added);
    entries_.emplace(added.id, &added);
    order_.emplace(added.id, std::move(made));
    return added.channel;
}

Result<void> Registry::remove(std::uint64_t parent, std::string_view name) {
    Entry* going = nullptr;
    std::shared_ptr<Channel> channel;
    {
        std::unique_lock hold(mutex_);
        Entry* above = entry(parent);
        if (!above || !above->children) return Fault{ENOENT, "rmdir"};
        auto at = above->children->by_name.find(name);
        if (at == above->children->by_name.end() || at->second->going) {
            return Fault{ENOENT, "rmdir"};
        }
        going = at->second;
        if (!going->empty()) return Fault{ENOTEMPTY, "rmdir: it has sub-channels"};
        going->going = true;
        channel = going->channel;
    }
    auto removed = channel->remove();  // ends what waits there, so without our lock
    std::unique_ptr<Entry> freed;
    std::unique_lock hold(mutex_);
    if (!removed) {
        going->going = false;
        return removed;
    }
    unlink(*going);
    entries_.erase(going->id);
    auto owned = order_.find(going->id);
    freed = std::move(owned->second);
    order_.erase(owned);
    hold.unlock();
    return {};
}

Result<void> Registry::rename(std::uint64_t parent, std::string_view name, std::uint64_t to_parent,
                              std::string_view to_name, bool keep) {
    if (parent == to_parent && name == to_name) return {};
    for (;;) {
        {
            std::unique_lock hold(mutex_);
            Entry* from = entry(parent);
            Entry* to = entry(to_parent);
            if (!from || !from->children || !to || to->going) return Fault{ENOENT, "rename"};
            auto at = from->children->by_name.find(name);
            if (at == from->children->by_name.end() || at->second->going) {
                return Fault{ENOENT, "rename"};
            }
            Entry* moved = at->second;
            for (const Entry* up = to; up; up = up->parent) {
                if (up == moved) return Fault{EINVAL, "rename: into itself"};
            }
            std::size_t length =
                prefix_ + path_of(*to).size() + 1 + to_name.size() + deepest(*moved);
            if (length > kLongestPath) return Fault{ENAMETOOLONG, "rename"};
            bool taken = to->children && to->children->by_name.contains(to_name);
            if (!taken) {
                unlink(*moved);
                moved->name = to_name;
                moved->made.changed = env_.clock.realtime();
                link(*to, *moved);
                return {};
            }
            if (keep) return Fault{EEXIST, "rename"};
        }
        if (auto gone = remove(to_parent, to_name); !gone && gone.error().code != ENOENT) {
            return gone;
        }
    }
}

std::shared_ptr<Channel> Registry::find(std::uint64_t id) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at ? at->channel : nullptr;
}

std::shared_ptr<Channel> Registry::child(std::uint64_t parent, std::string_view name) const {
    std::shared_lock hold(mutex_);
    Entry* above = entry(parent);
    if (!above || !above->children) return nullptr;
    auto at = above->children->by_name.find(name);
    return at == above->children->by_name.end() ? nullptr : at->second->channel;
}

std::shared_ptr<Channel> Registry::find_path(std::string_view path) const {
    std::shared_lock hold(mutex_);
    const Entry* at = root_.get();
    while (!path.empty()) {
        if (!at->children) return nullptr;
        std::string_view name = path.substr(0, path.find('/'));
        path.remove_prefix(std::min(path.size(), name.size() + 1));
        auto next = at->children->by_name.find(name);
        if (next == at->children->by_name.end()) return nullptr;
        at = next->second;
    }
    return at->channel;
}

std::string Registry::path(std::uint64_t id) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at ? path_of(*at) : std::string();
}

std::uint64_t Registry::parent(std::uint64_t id) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at && at->parent ? at->parent->id : kRootId;
}

std::size_t Registry::count_children(std::uint64_t id) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at && at->children ? at->children->by_id.size() : 0;
}

std::size_t Registry::size() const {
    std::shared_lock hold(mutex_);
    return entries_.size();
}

void Registry::list(
    std::uint64_t parent, std::uint64_t after,
    const std::function<bool(std::uint64_t id, std::string_view name)>& visit) const {
    std::shared_lock hold(mutex_);
    Entry* above = entry(parent);
    if (!above || !above->children) return;
    const auto& children = above->children->by_id;
    for (auto at = children.upper_bound(after); at != children.end(); ++at) {
        if (!visit(at->first, at->second->name)) return;
    }
}

void Registry::for_each(const std::function<void(const std::shared_ptr<Channel>&,
                                                 const std::string& path)>& visit) const {
    constexpr std::size_t kChunk = 64;
    std::vector<std::pair<std::shared_ptr<Channel>, std::string>> chunk;
    std::uint64_t after = 0;
    do {
        chunk.clear();
        {
            std::shared_lock hold(mutex_);
            for (auto at = order_.upper_bound(after); at != order_.end() && chunk.size() < kChunk;
                 ++at) {
                chunk.emplace_back(at->second->channel, path_of(*at->second));
                after = at->first;
            }
        }
        for (const auto& [channel, path] : chunk) visit(channel, path);
    } while (chunk.size() == kChunk);
}

bool Registry::read(std::uint64_t id, std::uint8_t kind, const Initial& initial,
                    const std::function<void(const Attributes&)>& use) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    if (!at) return false;
    for (const auto& [changed, attributes] : at->changed) {
        if (changed == kind) {
            use(attributes);
            return true;
        }
    }
    use(initial(at->made));
    return true;
}

bool Registry::change(std::uint64_t id, std::uint8_t kind, const Initial& initial,
                      const std::function<void(Attributes&)>& use) {
    std::unique_lock hold(mutex_);
    Entry* at = entry(id);
    if (!at) return false;
    for (auto& [changed, attributes] : at->changed) {
        if (changed == kind) {
            use(attributes);
            return true;
        }
    }
    use(at->changed.emplace_back(kind, initial(at->made)).second);
    return true;
}

void Registry::start_ids(std::uint64_t first) {
    std::unique_lock hold(mutex_);
    next_id_ = std::max(next_id_, first);
}

void Registry::set_defaults(const Settings& defaults) {
    std::unique_lock hold(mutex_);
    defaults_ = defaults;
}

void Registry::shut_down() noexcept {
    {
        std::unique_lock hold(mutex_);
        down_ = true;
    }
    for_each(
        [](const std::shared_ptr<Channel>& channel, const std::string&) { channel->shut_down(); });
}

}  // namespace ipcfs::channel
