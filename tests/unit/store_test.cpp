// What every store keeps, whatever it is made of: the same tests for the one in memory and on disk,
// and random operations against a plain model.
#include <fcntl.h>
#include <fstream>
#include <sys/mman.h>

#include <store/index.hpp>

#include "store_world.hpp"

namespace ipcfs::store {
namespace {

class Stores : public testing::TestWithParam<bool> {
protected:
    std::unique_ptr<Store> make() {
        if (!GetParam()) return std::make_unique<MemoryStore>(contents_);
        Options options;
        options.directory = directory_.path + "/store";
        options.segment_bytes = 64 << 10;  // so that many are emptied
        return std::make_unique<SegmentStore>(options, log_);
    }
    // Closes the store and starts anew from what it kept.
    Told reopen() {
        if (store) store->close();
        store = make();
        Told told;
        const auto done = store->recover(told);
        EXPECT_TRUE(done) << (done ? "" : done.error().message());
        return told;
    }

    TempDirectory directory_;
    KeepingLogger log_;
    std::shared_ptr<MemoryStore::Contents> contents_ = std::make_shared<MemoryStore::Contents>();

public:
    std::unique_ptr<Store> store;
};

INSTANTIATE_TEST_SUITE_P(Kinds, Stores, testing::Bool(), [](const auto& kind) {
    return kind.param ? std::string("disk") : std::string("memory");
});

Fd file_of(std::string_view text) {
    Fd file(::memfd_create("test", MFD_CLOEXEC));
    EXPECT_EQ(::write(file.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    return file;
}

TEST_P(Stores, KeepMessagesInOrderWithTheirStateAndForgetWhatIsErased) {
    EXPECT_TRUE(reopen().channels.empty());
    ASSERT_TRUE(store->put_channel(7, as_span("settings")));
    for (std::uint64_t i = 1; i <= 5; ++i)
        ASSERT_TRUE(put_one(*store, {7, i}, "content " + std::to_string(i)));
    const State taken{Place::kTaken, true, 3, 12345};
    ASSERT_TRUE(store->move({7, 2}, taken));
    ASSERT_TRUE(store->erase({7, 3}));
    ASSERT_TRUE(store->erase({7, 5}));
    const auto told = reopen();
    ASSERT_TRUE(told.channels.contains(7));
    const auto& channel = told.channels.at(7);
    EXPECT_EQ(channel.record, "settings");
    EXPECT_EQ(channel.last_sequence, 5U);
    ASSERT_EQ(channel.messages.size(), 3U);
    EXPECT_EQ(channel.messages.at(1).content, "content 1");
    EXPECT_EQ(channel.messages.at(1).head, "head");
    EXPECT_EQ(channel.messages.at(2).state, taken);
    EXPECT_EQ(channel.messages.at(4).state, State{});
}

TEST_P(Stores, KeepTheLastSequenceOfAChannelThatIsEmpty) {
    reopen();
    ASSERT_TRUE(store->put_channel(1, as_span("x")));
    ASSERT_TRUE(put_one(*store, {1, 41}, "a"));
    ASSERT_TRUE(store->erase({1, 41}));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(reopen().channels.at(1).last_sequence, 41U);
}

TEST_P(Stores, TellTheContentOfAnOriginThatIsErasedAndDropItWithItsLastReference) {
    reopen();
    for (const std::uint64_t id : {1U, 2U, 3U}) ASSERT_TRUE(store->put_channel(id, as_span("c")));
    const std::vector<Put> together{put_of({3, 1}, "topic", "the body"),
                                    put_of({1, 1}, "one", "", {}, {3, 1}),
                                    put_of({2, 1}, "two", "", {}, {3, 1})};
    ASSERT_TRUE(store->put(together, 0));
    ASSERT_TRUE(store->erase({3, 1}));
    ASSERT_TRUE(store->erase({1, 1}));
    auto told = reopen();
    EXPECT_TRUE(told.channels.at(3).messages.empty());
    EXPECT_TRUE(told.channels.at(1).messages.empty());
    EXPECT_EQ(told.channels.at(2).messages.at(1).content, "the body");
    EXPECT_EQ(told.channels.at(2).messages.at(1).origin, (Key{3, 1}));
    // Also when the topic has gone altogether.
    ASSERT_TRUE(store->erase_channel(3));
    told = reopen();
    EXPECT_FALSE(told.channels.contains(3));
    EXPECT_EQ(told.channels.at(2).messages.at(1).content, "the body");
    ASSERT_TRUE(store->erase({2, 1}));
    EXPECT_EQ(store->health().messages, 0U);
    EXPECT_EQ(reopen().messages, 0U);
}

TEST_P(Stores, TakeSeveralTogetherOrNone) {
    reopen();
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    ASSERT_TRUE(put_one(*store, {1, 2}, "there"));
    const std::vector<Put> together{put_of({1, 3}, "", "a"), put_of({1, 2}, "", "b")};
    EXPECT_EQ(store->put(together, 0).error().code, EEXIST);
    const std::vector<Put> unknown{put_of({1, 3}, "", "a"), put_of({9, 1}, "", "b")};
    EXPECT_EQ(store->put(unknown, 0).error().code, ENOENT);
    EXPECT_EQ(store->move({1, 3}, {}).error().code, ENOENT);
    EXPECT_TRUE(store->erase({1, 3}));
    EXPECT_EQ(reopen().channels.at(1).messages.size(), 1U);
}

TEST_P(Stores, CallEachCompletionOnceAndWithoutALock) {
    reopen();
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    class Chain final : public Completion {
    public:
        explicit Chain(Store& to) : store_(to) {}
        void durable(int error) noexcept override {
            EXPECT_EQ(error, 0);
            EXPECT_TRUE(put_one(store_, {1, 100}, "from a completion"));
            done_ = true;
        }
        std::atomic<bool> done_{false};

    private:
        Store& store_;
    };
    Chain chain(*store);
    store->when_durable(*put_one(*store, {1, 1}, "first"), chain);
    EXPECT_TRUE(eventually([&] { return chain.done_.load(); }));
    EXPECT_EQ(wait_durable(*store, 0), 0);
    EXPECT_EQ(reopen().channels.at(1).messages.size(), 2U);
}

TEST_P(Stores, RememberRequests) {
    reopen();
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    for (std::uint64_t i = 1; i <= 900; ++i) {
        ASSERT_TRUE(put_one(*store, {1, i}, std::string(200, 'x'), 1000 + i));
        ASSERT_TRUE(store->erase({1, i}));
    }
    for (int i = 0; i < 2; ++i) {
        const auto told = reopen();
        const std::set<std::uint64_t> requests(told.requests.begin(), told.requests.end());
        EXPECT_EQ(requests.size(), 900U);
        EXPECT_TRUE(requests.contains(1001) && requests.contains(1900));
    }
}

TEST_P(Stores, KeepPayloadsAsLongAsAMessageRefersToThem) {
    reopen();
    EXPECT_EQ(store->first_free_payload(), 1U);
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    const std::string text(300000, 'p');
    const Fd file = file_of("...." + text);
    for (const std::uint64_t id : {5U, 6U, 7U})
        ASSERT_TRUE(store->save_payload(id, file.get(), 4, text.size(), id != 6));
    EXPECT_EQ(store->save_payload(5, file.get(), 4, 1, false).error().code, EEXIST);
    EXPECT_EQ(store->save_payload(8, file.get(), 4, text.size() + 1, false).error().code, EIO);
    const std::vector<Put> together{put_of({1, 1}, "", "", {}, {}, 5),
                                    put_of({1, 2}, "", "", {}, {}, 5),
                                    put_of({1, 3}, "", "", {}, {}, 6)};
    ASSERT_TRUE(store->put(together, 0));
    auto told = reopen();
    EXPECT_EQ(told.channels.at(1).messages.at(2).payload, 5U);
    EXPECT_EQ(store->open_payload(7).error().code, ENOENT) << "nobody refers to it";
    EXPECT_EQ(store->first_free_payload(), 7U);
    const auto opened = store->open_payload(5);
    ASSERT_TRUE(opened);
    std::string back(text.size(), 0);
    EXPECT_EQ(::pread(opened->get(), back.data(), back.size(), 0),
              static_cast<ssize_t>(back.size()));
    EXPECT_EQ(back, text);
    EXPECT_LT(::write(opened->get(), "x", 1), 0);
    ASSERT_TRUE(store->erase({1, 1}));
    ASSERT_TRUE(store->erase({1, 3}));
    EXPECT_TRUE(eventually([&] { return !store->open_payload(6); }));
    EXPECT_TRUE(store->open_payload(5));
    ASSERT_TRUE(store->erase({1, 2}));
    EXPECT_TRUE(eventually([&] { return !store->open_payload(5); }));
    ASSERT_TRUE(store->save_payload(9, file.get(), 0, 10, true));
    store->drop_payload(9);
    EXPECT_EQ(store->open_payload(9).error().code, ENOENT);
}

TEST_P(Stores, CountTheirGenerations) {
    for (std::uint64_t i = 1; i <= 3; ++i) {
        reopen();
        ASSERT_TRUE(store->put_channel(1, as_span("c")));
        EXPECT_EQ(store->generation(), i);
        EXPECT_FALSE(store->may_have_lost_marks());
    }
}

TEST_P(Stores, MakeTheirFilesWithTheFirstChannel) {
    if (!GetParam()) GTEST_SKIP() << "has no files";
    const std::string home = directory_.path + "/store";
    for (int i = 0; i < 2; ++i) {
        EXPECT_TRUE(reopen().channels.empty());
        EXPECT_EQ(store->generation(), 1U);
        EXPECT_EQ(store->erase({1, 1}).error().code, EIO);
        EXPECT_EQ(wait_durable(*store, 0), 0);
        EXPECT_EQ(put_one(*store, {1, 1}, "too early").error().code, EIO);
        EXPECT_EQ(store->health().journal_bytes, 0U);
        EXPECT_FALSE(store->health().degraded());
        EXPECT_FALSE(std::filesystem::exists(home));
    }
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    EXPECT_TRUE(std::filesystem::exists(home + "/current"));
    EXPECT_TRUE(store->open());
    ASSERT_EQ(wait_durable(*store, *put_one(*store, {1, 1}, "kept")), 0);
    EXPECT_EQ(reopen().channels.at(1).messages.at(1).content, "kept");
    EXPECT_EQ(store->generation(), 2U);
    store->close();
    EXPECT_EQ(store->put_channel(2, as_span("late")).error().code, EIO);
}

TEST_P(Stores, AreAsBeforeWhenTheirFilesCannotBeMade) {
    if (!GetParam()) GTEST_SKIP() << "has no files";
    reopen();
    const std::string home = directory_.path + "/store";
    std::ofstream(home) << "in the way";
    EXPECT_EQ(store->put_channel(1, as_span("c")).error().code, ENOTDIR);
    EXPECT_EQ(store->open().error().code, ENOTDIR);
    EXPECT_FALSE(store->health().degraded());
    std::filesystem::remove(home);
    // Another daemon's, made since this one looked.
    {
        Options options;
        options.directory = home;
        SegmentStore other(options, log_);
        Told told;
        ASSERT_TRUE(other.recover(told));
        ASSERT_TRUE(other.open());
    }
    EXPECT_EQ(store->open().error().code, EBUSY);
    EXPECT_TRUE(std::filesystem::exists(home + "/current")) << "not touched";
    std::filesystem::remove_all(home);
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    EXPECT_EQ(reopen().channels.size(), 1U);
}

TEST_P(Stores, RefuseEverythingOnceClosed) {
    reopen();
    ASSERT_TRUE(store->put_channel(1, as_span("c")));
    store->close();
    EXPECT_EQ(put_one(*store, {1, 1}, "late").error().code, EIO);
    EXPECT_EQ(store->erase({1, 1}).error().code, EIO);
}

// Random operations; a MemoryStore is told the same, and after each reopening both tell the same.
TEST_P(Stores, TellWhatAPlainModelTellsAfterRandomOperations) {
    if (!GetParam()) GTEST_SKIP() << "is the model";
    const std::uint64_t number = seed();
    SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(number));
    std::mt19937_64 random(number);
    const auto up_to = [&](std::uint64_t most) { return random() % (most + 1); };
    MemoryStore model(contents_);
    reopen();
    struct Live {
        std::vector<Key> keys;
    } live;
    std::map<std::uint64_t, std::uint64_t> sequences;
    for (int round = 0; round < 12; ++round) {
        for (int i = 0; i < 1500; ++i) {
            const std::uint64_t what = up_to(99);
            if (sequences.empty() || what < 2) {
                const std::uint64_t id = 1 + up_to(7);
                const std::string record(up_to(300), 'r');
                ASSERT_EQ(store->put_channel(id, as_span(record)).has_value(),
                          model.put_channel(id, as_span(record)).has_value());
                sequences.try_emplace(id, 0);
            } else if (what < 3) {
                const std::uint64_t id = 1 + up_to(7);
                ASSERT_TRUE(store->erase_channel(id));
                ASSERT_TRUE(model.erase_channel(id));
            } else if (what < 55) {
                std::vector<Put> together;
                std::vector<std::string> texts(1 + (up_to(5) == 0 ? up_to(4) : 0));
                for (auto& text : texts) {
                    const std::uint64_t id = 1 + up_to(7);
                    text.assign(up_to(20) == 0 ? up_to(9000) : up_to(300), 'a');
                    for (char& c : text) c = static_cast<char>('a' + random() % 26);
                    Put put = put_of({id, sequences[id] += 1 + up_to(2)}, "h", text);
                    if (!live.keys.empty() && up_to(3) == 0) {
                        const Key origin = live.keys[up_to(live.keys.size() - 1)];
                        // A body is stored once: what refers has none of its own.
                        if (contents_->channels.contains(origin.channel) &&
                            contents_->channels[origin.channel].messages.contains(
                                origin.sequence) &&
                            contents_->channels[origin.channel]
                                    .messages[origin.sequence]
                                    .origin.channel == 0) {
                            put.origin = origin;
                            put.content = {};
                        }
                    }
                    together.push_back(put);
                }
                const auto done = store->put(together, 0);
                const auto same = model.put(together, 0);
                ASSERT_EQ(done.has_value(), same.has_value());
                if (!done) {
                    EXPECT_EQ(done.error().code, same.error().code);
                    continue;
                }
                for (const auto& put : together) live.keys.push_back(put.key);
            } else if (!live.keys.empty()) {
                const std::size_t at = up_to(live.keys.size() - 1);
                const Key key = live.keys[at];
                if (what < 75) {
                    const State state{static_cast<Place>(up_to(2)), up_to(1) == 1,
                                      static_cast<std::uint32_t>(up_to(9)), 0};
                    ASSERT_EQ(store->move(key, state).has_value(),
                              model.move(key, state).has_value());
                } else {
                    ASSERT_TRUE(store->erase(key));
                    ASSERT_TRUE(model.erase(key));
                    live.keys[at] = live.keys.back();
                    live.keys.pop_back();
                }
            }
        }
        const auto told = reopen();
        ASSERT_FALSE(store->health().degraded()) << store->health().text;
        Told expected;
        ASSERT_TRUE(model.recover(expected));
        for (const auto& [id, channel] : expected.channels) {
            for (const auto& [sequence, message] : channel.messages) {
                const auto same = told.channels.find(id);
                ASSERT_TRUE(same != told.channels.end() && same->second.messages.contains(sequence))
                    << id << "/" << sequence << " is lost in round " << round << ", origin "
                    << message.origin.channel << "/" << message.origin.sequence;
                const auto& there = same->second.messages.at(sequence);
                ASSERT_TRUE(there == message)
                    << id << "/" << sequence << " has changed in round " << round << ": place "
                    << static_cast<int>(there.state.place) << " for "
                    << static_cast<int>(message.state.place) << ", deliveries "
                    << there.state.deliveries << " for " << message.state.deliveries << ", content "
                    << there.content.size() << " for " << message.content.size() << ", origin "
                    << there.origin.channel << "/" << there.origin.sequence << " for "
                    << message.origin.channel << "/" << message.origin.sequence;
            }
        }
        ASSERT_EQ(told.messages, expected.messages);
        for (const auto& [id, channel] : expected.channels) {
            ASSERT_TRUE(told.channels.contains(id));
            EXPECT_EQ(told.channels.at(id).record, channel.record);
            EXPECT_EQ(told.channels.at(id).last_sequence, channel.last_sequence);
            EXPECT_EQ(told.channels.at(id).messages, channel.messages);
        }
        EXPECT_EQ(told.channels.size(), expected.channels.size());
    }
    EXPECT_GT(store->health().messages, 0U);
}

// Replay may begin behind what a topic's channel once said: at its erasure, with copies of what only
// references hold behind that.
TEST(StoreIndex, AChannelErasedBeforeItsHiddenMessagesAreCopiedStaysErased) {
    const auto message = [](Key key, Key origin, bool hidden) {
        MessageView view;
        view.header.key = key;
        view.header.origin = origin;
        view.header.state.hidden = hidden ? 1 : 0;
        view.length = sizeof(MessageHeader);
        return view;
    };
    Index index;
    index.begin_replay();
    index.erase_channel(7, 2);
    index.put(message({7, 1}, {}, true), make_lsn(3, 64));
    index.put_channel(8, {1, 0, 0}, {}, 3);
    index.put(message({8, 1}, {7, 1}, false), make_lsn(3, 256));
    EXPECT_TRUE(index.settle().empty());
    ASSERT_NE(index.channel(7), nullptr);
    EXPECT_TRUE(index.channel(7)->erased);
    EXPECT_EQ(index.messages(), 1U);
    index.erase({8, 1});
    EXPECT_EQ(index.channel(7), nullptr) << "nothing refers to it any more";
    EXPECT_EQ(index.live(2), 0U);
}

}  // namespace
}  // namespace ipcfs::store
