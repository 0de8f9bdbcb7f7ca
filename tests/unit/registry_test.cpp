// The registry: names, paths, removal, renaming, iteration while it changes.
#include <algorithm>

#include "engine_fixture.hpp"

namespace ipcfs::channel {
namespace {

using queue::Wake;

struct Names {
    World world;
    Registry registry{world.env, Settings{}, 4};
    access::Account& user = world.ledger.account(1);

    Result<std::shared_ptr<Channel>> make(std::uint64_t parent, std::string_view name) {
        Attributes attributes;
        attributes.mode = 0755;
        return registry.create(parent, name, std::move(attributes), user);
    }
    // Makes every channel on the path, as mkdir -p.
    std::shared_ptr<Channel> path(std::string_view path) {
        std::shared_ptr<Channel> at;
        while (!path.empty()) {
            std::string_view name = path.substr(0, path.find('/'));
            path.remove_prefix(std::min(path.size(), name.size() + 1));
            const std::uint64_t parent = at ? at->id() : Registry::kRootId;
            auto known = registry.child(parent, name);
            at = known ? known : *make(parent, name);
        }
        return at;
    }
    int rename(std::uint64_t from, std::string_view name, std::uint64_t to,
               std::string_view to_name, bool keep = false) {
        auto done = registry.rename(from, name, to, to_name, keep);
        return done ? 0 : done.error().code;
    }
    int remove(std::uint64_t parent, std::string_view name) {
        auto done = registry.remove(parent, name);
        return done ? 0 : done.error().code;
    }
};
constexpr std::uint64_t kRoot = Registry::kRootId;

TEST(Registry, FindsByIdByNameAndByPath) {
    Names names;
    auto c = names.path("a/b/c");
    EXPECT_EQ(names.registry.find(c->id()), c);
    EXPECT_EQ(names.registry.find_path("a/b/c"), c);
    EXPECT_EQ(names.registry.path(c->id()), "a/b/c");
    EXPECT_EQ(names.registry.child(names.registry.parent(c->id()), "c"), c);
    EXPECT_EQ(names.registry.find_path("a/x/c"), nullptr);
    EXPECT_EQ(names.registry.find_path("a/b/c/d"), nullptr);
    EXPECT_EQ(names.registry.find(999), nullptr);
    EXPECT_EQ(names.registry.path(kRoot), "");
    EXPECT_EQ(names.registry.count_children(kRoot), 1U);
    EXPECT_EQ(names.registry.size(), 3U);
}

TEST(Registry, RefusesANameThatIsThereAndAParentThatIsNot) {
    Names names;
    names.path("a");
    auto twice = names.make(kRoot, "a");
    ASSERT_FALSE(twice);
    EXPECT_EQ(twice.error().code, EEXIST);
    auto orphan = names.make(77, "b");
    ASSERT_FALSE(orphan);
    EXPECT_EQ(orphan.error().code, ENOENT);
    EXPECT_EQ(names.user.used(access::Resource::kChannels), 1U);
}

TEST(Registry, ChargesChannelsToTheirOwnerUntilTheyAreRemoved) {
    Names names;
    names.world.ledger.reload([](uid_t) { return access::Limits{9, 9, 2, 9, 9}; }, 100);
    names.path("a");
    names.path("b");
    auto third = names.make(kRoot, "c");
    ASSERT_FALSE(third);
    EXPECT_EQ(third.error().code, EDQUOT);
    EXPECT_EQ(names.remove(kRoot, "a"), 0);
    EXPECT_TRUE(names.make(kRoot, "c"));
}

TEST(Registry, BoundsTheLengthOfAPath) {
    Names names;
    const std::string name(255, 'n');
    std::uint64_t parent = kRoot;
    int deep = 0;
    for (;; ++deep) {
        ASSERT_LT(deep, 20);
        auto made = names.make(parent, name);
        if (!made) {
            EXPECT_EQ(made.error().code, ENAMETOOLONG);
            break;
        }
        parent = (*made)->id();
    }
    EXPECT_EQ(deep, 15);
    // Renaming must not pass it for what is below.
    names.path("x/y");
    const std::string top(200, 't');
    const std::uint64_t y = names.registry.find_path("x/y")->id();
    EXPECT_EQ(names.rename(kRoot, name, y, top), 0);
    EXPECT_EQ(names.rename(y, top, y, std::string(255, 'T') + std::string(200, 'T')), ENAMETOOLONG);
    EXPECT_EQ(names.registry.path(parent).substr(0, 6), "x/y/tt");
}

TEST(Registry, RefusesToRemoveWhatHoldsMessagesOrSubChannels) {
    Names names;
    auto b = names.path("a/b");
    EXPECT_EQ(names.remove(kRoot, "a"), ENOTEMPTY);
    names.world.push(*b, "x");
    EXPECT_EQ(names.remove(names.registry.parent(b->id()), "b"), ENOTEMPTY);
    EXPECT_EQ(names.registry.find_path("a/b"), b);
    next(*b);
    EXPECT_EQ(names.remove(names.registry.parent(b->id()), "b"), 0);
    EXPECT_EQ(names.remove(kRoot, "a"), 0);
    EXPECT_EQ(names.remove(kRoot, "a"), ENOENT);
    EXPECT_EQ(names.registry.size(), 0U);
}

TEST(Registry, RemovalEndsReadersThatWait) {
    Names names;
    auto a = names.path("a");
    Reader reader;
    a->take(reader);
    EXPECT_EQ(names.remove(kRoot, "a"), 0);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(reader.why, Wake::kRemoved);
    EXPECT_TRUE(a->removed());
    EXPECT_EQ(names.registry.path(a->id()), "");
}

TEST(Registry, RenamingKeepsTheChannelItsMessagesAndWhatIsBelow) {
    Names names;
    auto c = names.path("a/b/c");
    names.path("z");
    names.world.push(*c, "x");
    const auto a = names.registry.find_path("a")->id(), z = names.registry.find_path("z")->id();
    EXPECT_EQ(names.rename(a, "b", z, "B"), 0);
    EXPECT_EQ(names.registry.path(c->id()), "z/B/c");
    EXPECT_EQ(names.registry.find_path("z/B/c"), c);
    EXPECT_EQ(names.registry.find_path("a/b"), nullptr);
    EXPECT_EQ(next(*c), "x");
    EXPECT_EQ(names.registry.count_children(a), 0U);
}

TEST(Registry, RenamingReplacesAnEmptyChannelOnly) {
    Names names;
    auto from = names.path("from"), to = names.path("to");
    names.world.push(*to, "x");
    EXPECT_EQ(names.rename(kRoot, "from", kRoot, "to"), ENOTEMPTY);
    EXPECT_EQ(names.rename(kRoot, "from", kRoot, "to", true), EEXIST);
    next(*to);
    Reader reader;
    to->take(reader);
    EXPECT_EQ(names.rename(kRoot, "from", kRoot, "to"), 0);
    EXPECT_EQ(reader.why, Wake::kRemoved);
    EXPECT_TRUE(reader.done());
    EXPECT_EQ(names.registry.find_path("to"), from);
    EXPECT_EQ(names.registry.find_path("from"), nullptr);
    EXPECT_EQ(names.registry.size(), 1U);
    EXPECT_EQ(names.user.used(access::Resource::kChannels), 1U);
}

TEST(Registry, RenamingIntoItselfOntoItsParentOrFromNowhereIsRefused) {
    Names names;
    names.path("a/b/c");
    const auto a = names.registry.find_path("a")->id();
    const auto b = names.registry.find_path("a/b")->id();
    EXPECT_EQ(names.rename(kRoot, "a", b, "x"), EINVAL);
    EXPECT_EQ(names.rename(kRoot, "a", a, "x"), EINVAL);
    EXPECT_EQ(names.rename(a, "b", kRoot, "a"), ENOTEMPTY);
    EXPECT_EQ(names.rename(kRoot, "none", kRoot, "x"), ENOENT);
    EXPECT_EQ(names.rename(kRoot, "a", 99, "x"), ENOENT);
    EXPECT_EQ(names.rename(kRoot, "a", kRoot, "a"), 0);
    EXPECT_EQ(names.registry.path(b), "a/b");
}

TEST(Registry, ListsFromWhereAReaderStoppedWhileItChanges) {
    Names names;
    for (int i = 0; i < 10; ++i) names.path("n" + std::to_string(i));
    Texts seen;
    std::uint64_t after = 0;
    for (int step = 0; step < 20; ++step) {
        names.registry.list(kRoot, after, [&](std::uint64_t id, std::string_view name) {
            seen.emplace_back(name);
            after = id;
            return false;
        });
        if (step == 3) names.remove(kRoot, "n3");  // where it stands
        if (step == 4) names.remove(kRoot, "n8");  // still to come
        if (step == 5) names.path("new");
    }
    EXPECT_EQ(seen, (Texts{"n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7", "n9", "new"}));
}

TEST(Registry, VisitsAllAndMayBeChangedByTheVisit) {
    Names names;
    for (int i = 0; i < 200; ++i) names.path("n" + std::to_string(i));
    std::size_t visited = 0;
    names.registry.for_each([&](const std::shared_ptr<Channel>& channel, const std::string& path) {
        ++visited;
        EXPECT_EQ(names.registry.path(channel->id()), path);
        EXPECT_EQ(names.remove(kRoot, path), 0);
    });
    EXPECT_EQ(visited, 200U);
    EXPECT_EQ(names.registry.size(), 0U);
}

TEST(Registry, KeepsAttributesOfFilesThatWereChanged) {
    Names names;
    auto a = names.path("a");
    auto initial = [](const Attributes& made) {
        Attributes file = made;
        file.mode &= 0666;
        return file;
    };
    auto mode = [&](std::uint8_t kind) {
        mode_t found = 0;
        EXPECT_TRUE(names.registry.read(a->id(), kind, initial,
                                        [&](const Attributes& is) { found = is.mode; }));
        return found;
    };
    EXPECT_EQ(mode(1), 0644U);
    EXPECT_TRUE(names.registry.change(a->id(), 1, initial, [](Attributes& is) { is.mode = 0600; }));
    EXPECT_EQ(mode(1), 0600U);
    EXPECT_EQ(mode(2), 0644U);
    names.remove(kRoot, "a");
    EXPECT_FALSE(names.registry.read(a->id(), 1, initial, [](const Attributes&) {}));
}

TEST(Registry, SubscriptionsHaveNamesOfTheirOwn) {
    Names names;
    auto topic = names.path("top/t");
    ASSERT_TRUE(topic->control("type topic"));
    auto make = [&](std::string_view name) {
        return names.registry.create(topic->id(), name, Attributes{}, names.user,
                                     Role::kSubscription);
    };
    auto alice = make("alice");
    ASSERT_TRUE(alice);
    names.path("top/t/alice");  // a channel of the same name
    EXPECT_EQ(make("alice").error().code, EEXIST);
    EXPECT_EQ((*alice)->role(), Role::kSubscription);
    EXPECT_EQ(topic->role(), Role::kChannel);
    EXPECT_EQ(names.registry.child(topic->id(), "alice", Role::kSubscription), *alice);
    EXPECT_NE(names.registry.child(topic->id(), "alice"), *alice);
    EXPECT_EQ(names.registry.find((*alice)->id()), *alice);
    EXPECT_EQ(names.registry.parent((*alice)->id()), topic->id());
    EXPECT_EQ(names.registry.path((*alice)->id()), "top/t/subs/alice");
    EXPECT_EQ(names.registry.find_path("top/t/subs/alice"), *alice);
    EXPECT_EQ(names.registry.find_path("top/t/subs/bob"), nullptr);
    EXPECT_EQ(names.registry.find_path("top/t/subs"), nullptr);
    EXPECT_EQ(names.registry.count_children(topic->id()), 1U);
    EXPECT_EQ(names.registry.count_children(topic->id(), Role::kSubscription), 1U);
    Texts listed;
    names.registry.list(
        topic->id(), 0,
        [&](std::uint64_t, std::string_view name) {
            listed.emplace_back(name);
            return true;
        },
        Role::kSubscription);
    EXPECT_EQ(listed, (Texts{"alice"}));

    EXPECT_TRUE(
        names.registry.rename(topic->id(), "alice", topic->id(), "bob", true, Role::kSubscription));
    EXPECT_EQ(names.registry.path((*alice)->id()), "top/t/subs/bob");
    auto moved = names.registry.rename(topic->id(), "bob", names.registry.parent(topic->id()),
                                       "bob", true, Role::kSubscription);
    EXPECT_EQ(moved.error().code, EXDEV);

    names.world.push(*topic, "x");
    auto full = names.registry.remove(topic->id(), "bob", Role::kSubscription);
    EXPECT_EQ(full.error().code, ENOTEMPTY);
    EXPECT_EQ(next(**alice), "x");
    EXPECT_TRUE(names.registry.remove(topic->id(), "bob", Role::kSubscription));
    EXPECT_TRUE((*alice)->removed());
    EXPECT_EQ(topic->snapshot().subscriptions, 0U);
    EXPECT_EQ(names.user.used(access::Resource::kChannels), 3U);
}

TEST(Registry, OnlyTopicsHaveSubscriptions) {
    Names names;
    auto queue = names.path("q");
    auto refused =
        names.registry.create(queue->id(), "a", Attributes{}, names.user, Role::kSubscription);
    EXPECT_EQ(refused.error().code, ENOTDIR);
    EXPECT_EQ(
        names.registry.create(99, "a", Attributes{}, names.user, Role::kSubscription).error().code,
        ENOENT);
    EXPECT_EQ(names.registry.create(kRoot, "a", Attributes{}, names.user, Role::kSubscription)
                  .error()
                  .code,
              ENOENT);
    EXPECT_EQ(names.user.used(access::Resource::kChannels), 1U);
}

TEST(Registry, NewChannelsGetTheDefaultsOfTheirTime) {
    Names names;
    auto before = names.path("before");
    Settings defaults;
    defaults.capacity = 7;
    names.registry.set_defaults(defaults);
    EXPECT_EQ(names.path("after")->settings().capacity, 7U);
    EXPECT_EQ(before->settings().capacity, 1000U);
}

TEST(Registry, ShutsAllChannelsDownAndMakesNoMore) {
    Names names;
    auto a = names.path("a");
    Reader reader;
    a->take(reader);
    names.registry.shut_down();
    EXPECT_EQ(reader.why, Wake::kShutdown);
    EXPECT_FALSE(names.make(kRoot, "b"));
}

}  // namespace
}  // namespace ipcfs::channel
