// Names and attributes of channels. Any thread.
#include <algorithm>
#include <mutex>

#include <store/store.hpp>

#include <base/check.hpp>
#include <channel/registry_entry.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

Registry::Registry(Environment& environment, const Settings& defaults, std::size_t prefix)
    : env_(environment), prefix_(prefix), defaults_(defaults), root_(std::make_unique<Entry>()) {
    root_->made.mode = 01777;
    root_->made.changed = environment.clock.realtime();
    environment.registry.store(this, std::memory_order_release);
}

Registry::~Registry() {
    env_.registry.store(nullptr, std::memory_order_release);
}

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
        if ((*at)->role() == Role::kSubscription) path.append(Entry::kSubs).push_back('/');
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
        for (const Children* below : {at->children.get(), at->subscriptions.get()}) {
            if (!below) continue;
            for (const auto& [id, child] : below->by_id) {
                open.emplace_back(child, length + 1 + child->length());
            }
        }
    }
    return longest;
}

void Registry::link(Entry& parent, Entry& child) {
    auto& among = parent.of(child.role());
    if (!among) among = std::make_unique<Children>();
    child.parent = &parent;
    among->by_name.emplace(child.name, &child);
    among->by_id.emplace(child.id, &child);
}

void Registry::unlink(Entry& child) {
    auto& among = child.parent->of(child.role());
    among->by_name.erase(child.name);
    among->by_id.erase(child.id);
    if (among->by_id.empty()) among.reset();
}

Result<std::shared_ptr<Channel>> Registry::create(std::uint64_t parent, std::string_view name,
                                                  Attributes attributes, access::Account& owner,
                                                  Role role,
                                                  std::optional<access::Identity> subscriber) {
    auto charge = access::Charge::take(owner, access::Resource::kChannels, 1);
    if (!charge) return Fault{EDQUOT, "mkdir: the user's limit of channels is reached"};
    auto made = std::make_unique<Entry>();
    made->name = name;
    made->charge = std::move(*charge);
    std::shared_ptr<Channel> topic;
    if (role == Role::kSubscription) {
        std::unique_lock hold(mutex_);
        Entry* above = entry(parent);
        if (!above || !above->channel || above->going || down_) {
            return Fault{ENOENT, "mkdir: the topic is gone"};
        }
        if (above->child(role, name)) return Fault{EEXIST, "mkdir"};
        topic = above->channel;
        made->id = next_id_++;
    } else if (env_.store && defaults().durable != Durable::kOff) {
        // Not under the lock: making the store's files takes a while.
        if (auto opened = env_.store->open(); !opened) return opened.error();
    }
    if (topic) {
        // It takes part before it has a name: the topic cannot go in between.
        if (!subscriber) subscriber.emplace(attributes.uid, attributes.gid);
        made->channel = std::make_shared<Channel>(topic, made->id, *subscriber, owner, true);
        if (!topic->attach(*made->channel->subscription())) {
            return Fault{ENOTDIR, "mkdir: only topics have subscriptions"};
        }
    }
    made->made = std::move(attributes);
    std::shared_ptr<Channel> subscription = made->channel;
    auto added = enter(parent, std::move(made));
    if (!added && subscription) subscription->subscription()->end();
    env_.recursion.changed();
    return added;
}

// Gives it a place. If that fails, a subscription is over when the entry dies.
Result<std::shared_ptr<Channel>> Registry::enter(std::uint64_t parent,
                                                 std::unique_ptr<Entry> made) {
    std::unique_lock hold(mutex_);
    Entry* above = entry(parent);
    if (!above || above->going || down_) return Fault{ENOENT, "mkdir: the parent is gone"};
    if (above->child(made->role(), made->name)) return Fault{EEXIST, "mkdir"};
    if (prefix_ + path_of(*above).size() + 1 + made->length() > kLongestPath) {
        return Fault{ENAMETOOLONG, "mkdir: the path would be too long"};
    }
    if (!made->channel) {
        made->id = next_id_++;
        made->channel = std::make_shared<Channel>(env_, made->id, defaults_);
    }
    Entry& added = *made;
    link(*above, added);
    const Settings settings = added.channel->settings();
    if (env_.store && settings.durable != Durable::kOff) {
        if (auto kept = keep(added, settings); !kept) {
            unlink(added);
            return kept.error();
        }
    }
    entries_.emplace(added.id, &added);
    order_.emplace(added.id, std::move(made));
    return added.channel;
}

Result<void> Registry::remove(std::uint64_t parent, std::string_view name, Role role) {
    Entry* going = nullptr;
    std::shared_ptr<Channel> channel;
    {
        std::unique_lock hold(mutex_);
        Entry* above = entry(parent);
        going = above ? above->child(role, name) : nullptr;
        if (!going || going->going) return Fault{ENOENT, "rmdir"};
        if (going->count(Role::kChannel)) return Fault{ENOTEMPTY, "rmdir: it has sub-channels"};
        if (going->count(Role::kSubscription)) {
            return Fault{ENOTEMPTY, "rmdir: it has subscriptions"};
        }
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
    if (going->kept) (void)env_.store->erase_channel(going->id);
    unlink(*going);
    entries_.erase(going->id);
    auto owned = order_.find(going->id);
    freed = std::move(owned->second);
    order_.erase(owned);
    hold.unlock();
    if (Subscription* subscription = channel->subscription()) subscription->end();
    env_.recursion.changed();
    return {};
}

Result<void> Registry::rename(std::uint64_t parent, std::string_view name, std::uint64_t to_parent,
                              std::string_view to_name, bool keep, Role role) {
    if (parent == to_parent && name == to_name) return {};
    if (parent != to_parent && role == Role::kSubscription) {
        return Fault{EXDEV, "rename: a subscription stays at its topic"};
    }
    for (;;) {
        {
            std::unique_lock hold(mutex_);
            Entry* from = entry(parent);
            Entry* to = entry(to_parent);
            Entry* moved = from ? from->child(role, name) : nullptr;
            if (!moved || moved->going || !to || to->going) return Fault{ENOENT, "rename"};
            for (const Entry* up = to; up; up = up->parent) {
                if (up == moved) return Fault{EINVAL, "rename: into itself"};
            }
            std::size_t length = prefix_ + path_of(*to).size() + 1 + moved->length() -
                                 moved->name.size() + to_name.size() + deepest(*moved);
            if (length > kLongestPath) return Fault{ENAMETOOLONG, "rename"};
            if (!to->child(role, to_name)) {
                unlink(*moved);
                moved->name = to_name;
                moved->made.changed = env_.clock.realtime();
                link(*to, *moved);
                keep_again(*moved);
                env_.recursion.changed();
                return {};
            }
            if (keep) return Fault{EEXIST, "rename"};
        }
        if (auto gone = remove(to_parent, to_name, role); !gone && gone.error().code != ENOENT) {
            return gone;
        }
    }
}

std::shared_ptr<Channel> Registry::find(std::uint64_t id) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at ? at->channel : nullptr;
}

std::shared_ptr<Channel> Registry::child(std::uint64_t parent, std::string_view name,
                                         Role role) const {
    std::shared_lock hold(mutex_);
    Entry* above = entry(parent);
    Entry* found = above ? above->child(role, name) : nullptr;
    return found ? found->channel : nullptr;
}

std::shared_ptr<Channel> Registry::find_path(std::string_view path) const {
    std::shared_lock hold(mutex_);
    const Entry* at = root_.get();
    Role role = Role::kChannel;
    while (!path.empty()) {
        std::string_view name = path.substr(0, path.find('/'));
        path.remove_prefix(std::min(path.size(), name.size() + 1));
        // No channel has the name of a file.
        if (role == Role::kChannel && name == Entry::kSubs && !path.empty() && at->subscriptions) {
            role = Role::kSubscription;
            continue;
        }
        at = at->child(role, name);
        if (!at) return nullptr;
        role = Role::kChannel;
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

std::vector<std::pair<std::shared_ptr<Channel>, std::string>> Registry::above(
    std::uint64_t id) const {
    std::vector<std::pair<std::shared_ptr<Channel>, std::string>> found;
    std::shared_lock hold(mutex_);
    const Entry* at = entry(id);
    if (!at) return found;
    std::string path;
    for (; at->parent && at->parent->channel; at = at->parent) {
        path = path.empty() ? at->name : at->name + "/" + path;
        found.emplace_back(at->parent->channel, path);
    }
    return found;
}

std::size_t Registry::count_children(std::uint64_t id, Role role) const {
    std::shared_lock hold(mutex_);
    Entry* at = entry(id);
    return at ? at->count(role) : 0;
}

std::size_t Registry::size() const {
    std::shared_lock hold(mutex_);
    return entries_.size();
}

void Registry::list(std::uint64_t parent, std::uint64_t after, const Visit& visit,
                    Role role) const {
    std::shared_lock hold(mutex_);
    Entry* above = entry(parent);
    if (!above || !above->of(role)) return;
    const auto& all = above->of(role)->by_id;
    for (auto at = all.upper_bound(after); at != all.end(); ++at) {
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
    auto known = std::find_if(at->changed.begin(), at->changed.end(),
                              [kind](const auto& one) { return one.first == kind; });
    if (known == at->changed.end()) {
        at->changed.emplace_back(kind, initial(at->made));
        known = at->changed.end() - 1;
    }
    use(known->second);
    keep_again(*at);
    hold.unlock();
    env_.recursion.changed();
    return true;
}

void Registry::start_ids(std::uint64_t first) {
    std::unique_lock hold(mutex_);
    next_id_ = std::max(next_id_, first);
}

std::uint64_t Registry::next_id() const {
    std::shared_lock hold(mutex_);
    return next_id_;
}

Settings Registry::defaults() const {
    std::unique_lock hold(mutex_);
    return defaults_;
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
    for_each([](const auto& channel, const std::string&) { channel->shut_down(); });
}

}  // namespace ipcfs::channel
