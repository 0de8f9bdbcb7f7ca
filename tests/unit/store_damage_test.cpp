// Damage: a bit that flips, a file that is cut, in every page of a small store. All of it comes back, or
// the store is put aside and said to be damaged: never silently less.
#include <cstdio>
#include <fstream>
#include <sys/wait.h>

#include <store/epoch.hpp>

#include "silent_logger.hpp"
#include "store_world.hpp"

namespace ipcfs::store {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t kSegment = 32 << 10;

Options small(const std::string& directory) {
    Options options;
    options.directory = directory;
    options.segment_bytes = kSegment;
    return options;
}

std::string read_all(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

void write_all_of(const fs::path& path, const std::string& data) {
    std::ofstream out(path, std::ios::binary | std::ios::trunc);
    out.write(data.data(), static_cast<std::streamsize>(data.size()));
}

std::map<std::string, std::string> all_files(const fs::path& root) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(root))
        if (entry.is_regular_file()) files[entry.path().string()] = read_all(entry.path());
    return files;
}

std::string text_of(std::uint64_t i) {
    return std::string(i % 40 == 0 ? 6000 : 100 + i % 200, static_cast<char>('a' + i % 26));
}

// Puts and erases so much that segments have been emptied, with copies of what was alive in them.
void fill(Store& store, std::uint64_t messages) {
    for (std::uint64_t id = 1; id <= 3; ++id)
        ASSERT_TRUE(store.put_channel(id, as_span("channel")));
    std::vector<std::uint64_t> live;
    for (std::uint64_t i = 1; i <= messages; ++i) {
        const Key key{1 + i % 3, i};
        const auto put = put_one(store, key, text_of(i));
        ASSERT_TRUE(put);
        if (i % 4 == 0) {
            ASSERT_TRUE(store.erase(key));
        } else if (i % 5 == 0) {
            ASSERT_TRUE(store.move(key, {Place::kTaken, false, 2, 0}));
        }
        if (i % 100 == 0) {
            ASSERT_EQ(wait_durable(store, *put), 0);
        }
    }
    for (std::uint64_t i = messages + 1; i <= messages * 6; ++i) {
        const Key key{1 + i % 3, i};
        ASSERT_TRUE(put_one(store, key, text_of(i)));
        ASSERT_TRUE(store.erase(key));
    }
    ASSERT_EQ(wait_durable(store, *store.erase({1, 3})), 0);
    ASSERT_TRUE(eventually([&] {
        const auto health = store.health();
        return health.copied_bytes > 100'000 && health.journal_bytes <= 20 * kSegment;
    })) << store.health().copied_bytes
        << " bytes copied, " << store.health().journal_bytes << " in use";
}

class Damage : public testing::Test {
protected:
    // A store as it is after a clean end, or as a process leaves it that was killed.
    void make(bool clean) {
        SilentLogger silent;
        {
            SegmentStore store(small(home_), silent);
            Told told;
            ASSERT_TRUE(store.recover(told));
            fill(store, 700);
            if (!clean) {
                // The files as they are at one moment: what a death of the process leaves.
                ASSERT_TRUE(eventually([&] {
                    const auto before = state_of(store);
                    std::error_code failed;
                    fs::remove_all(home_ + ".killed");
                    fs::copy(home_, home_ + ".killed", fs::copy_options::recursive, failed);
                    return !failed && state_of(store) == before;
                }));
            }
        }
        if (!clean) {
            fs::remove_all(home_);
            fs::rename(home_ + ".killed", home_);
        }
        fs::copy(home_, home_ + ".good", fs::copy_options::recursive);
        SegmentStore store(small(home_), silent);
        ASSERT_TRUE(store.recover(expected_));
        ASSERT_FALSE(store.health().degraded()) << store.health().text;
        store.close();
        ASSERT_GT(expected_.messages, 400U);
    }

    // What changes while the cleaner is at work.
    std::pair<std::uint64_t, std::vector<std::string>> state_of(Store& store) const {
        std::pair<std::uint64_t, std::vector<std::string>> state{store.health().cleaned, {}};
        for (const auto& entry : fs::recursive_directory_iterator(home_))
            state.second.push_back(entry.path().string());
        std::sort(state.second.begin(), state.second.end());
        return state;
    }

    void restore() {
        fs::remove_all(home_);
        fs::copy(home_ + ".good", home_, fs::copy_options::recursive);
    }

    // Everything, or everything that is told was there and the loss is loud.
    void check(const std::string& what) {
        KeepingLogger log;
        SegmentStore store(small(home_), log);
        Told told;
        const auto done = store.recover(told);
        ASSERT_TRUE(done) << what << ": " << done.error().message();
        const auto health = store.health();
        if (!health.damaged) {
            ++intact_;
            ASSERT_TRUE(told.channels == expected_.channels) << what << ": something is missing";
        } else {
            ++loud_;
            ASSERT_FALSE(log.lines().empty()) << what;
            ASSERT_FALSE(health.text.empty()) << what;
            ASSERT_TRUE(fs::exists(health.quarantine)) << what;
            for (const auto& [id, channel] : told.channels) {
                for (const auto& [sequence, message] : channel.messages) {
                    // An erased one may be back; an invented one may not.
                    const std::uint64_t i = sequence;
                    ASSERT_EQ(id, 1 + i % 3) << what;
                    ASSERT_EQ(message.content, text_of(i)) << what;
                    ASSERT_TRUE(message.state.redelivered) << what;
                }
            }
            saved_ += told.messages;
        }
        // And it goes on working.
        ASSERT_TRUE(store.put_channel(9, as_span("new")));
        ASSERT_EQ(wait_durable(store, *put_one(store, {9, 1}, "goes on")), 0) << what;
    }

    std::vector<fs::path> files() {
        std::vector<fs::path> all;
        for (const auto& entry : fs::recursive_directory_iterator(home_ + ".good/current"))
            if (entry.is_regular_file() && entry.file_size() != 0)
                all.push_back(fs::relative(entry.path(), home_ + ".good"));
        std::sort(all.begin(), all.end());
        return all;
    }

    void flip_each_page() {
        const std::uint64_t number = seed();
        SCOPED_TRACE("IPCFS_TEST_SEED=" + std::to_string(number));
        std::mt19937_64 random(number);
        for (const auto& file : files()) {
            const std::string good = read_all(home_ + ".good/" + file.string());
            for (std::size_t page = 0; page * 4096 < good.size(); ++page) {
                restore();
                std::string bad = good;
                const std::size_t size = std::min<std::size_t>(4096, good.size() - page * 4096);
                // In what is used of the page more often than in what is not.
                std::size_t at = page * 4096 + random() % size;
                for (int i = 0; i < 20 && bad[at] == 0; ++i) at = page * 4096 + random() % size;
                bad[at] = static_cast<char>(bad[at] ^ (1 << random() % 8));
                write_all_of(home_ + "/" + file.string(), bad);
                check("a bit of " + file.string() + " at " + std::to_string(at));
                if (HasFatalFailure()) return;
            }
        }
    }

    TempDirectory directory_;
    std::string home_ = directory_.path + "/store";
    Told expected_;
    int intact_ = 0, loud_ = 0;
    std::size_t saved_ = 0;
};

TEST_F(Damage, OfOneBitInAnyPageOfAClosedStoreIsHarmlessOrLoud) {
    make(true);
    if (HasFatalFailure()) return;
    flip_each_page();
    EXPECT_GT(loud_, 10);
    std::printf("%d harmless, %d loud, %zu messages saved on average of %zu\n", intact_, loud_,
                saved_ / static_cast<std::size_t>(std::max(loud_, 1)), expected_.messages);
}

TEST_F(Damage, OfOneBitInAnyPageOfAKilledStoreIsHarmlessOrLoud) {
    make(false);
    if (HasFatalFailure()) return;
    flip_each_page();
    EXPECT_GT(loud_, 10);
    std::printf("%d harmless, %d loud\n", intact_, loud_);
}

TEST_F(Damage, OfAFileCutAtAnyPageIsHarmlessOrLoud) {
    make(true);
    if (HasFatalFailure()) return;
    for (const auto& file : files()) {
        const auto size = fs::file_size(home_ + ".good/" + file.string());
        for (std::uint64_t to = 0; to < size; to += 4096) {
            restore();
            fs::resize_file(home_ + "/" + file.string(), to);
            check(file.string() + " cut to " + std::to_string(to));
            if (HasFatalFailure()) return;
        }
    }
    std::printf("%d harmless, %d loud\n", intact_, loud_);
}

TEST_F(Damage, OfAFileThatIsGoneIsLoud) {
    make(true);
    if (HasFatalFailure()) return;
    for (const auto& file : files()) {
        restore();
        fs::remove(home_ + "/" + file.string());
        check("without " + file.string());
        if (HasFatalFailure()) return;
    }
    EXPECT_GE(loud_, 3) << "segments, the epoch";
}

// Every single bit of every record, and of the headers of segments.
TEST_F(Damage, OfAnyBitIsSeenInWhatItIsPartOf) {
    make(true);
    if (HasFatalFailure()) return;
    std::size_t tried = 0;
    for (const auto& entry : fs::directory_iterator(home_ + ".good/current/journal")) {
        std::string data = read_all(entry.path());
        const auto each_bit = [&](std::size_t from, std::size_t to, auto&& seen) {
            for (std::size_t bit = from * 8; bit < to * 8; ++bit, ++tried) {
                data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
                ASSERT_TRUE(seen()) << entry.path() << " bit " << bit;
                data[bit / 8] = static_cast<char>(data[bit / 8] ^ (1 << bit % 8));
            }
        };
        const auto header = parse_segment(as_span(data));
        ASSERT_TRUE(header);
        each_bit(0, sizeof *header, [&] { return !parse_segment(as_span(data)); });
        for (std::uint32_t at = kSegmentStart;;) {
            const auto record = [&] {
                return parse_record(as_span(data), at, header->number, header->salt);
            };
            const auto good = record();
            if (!good) break;
            const std::uint32_t end = at + good->header.length;
            if (good->header.length < 1000 || at % 1024 < 128)
                each_bit(at, end, [&] { return !record(); });
            if (HasFatalFailure()) return;
            at = end;
        }
    }
    EXPECT_GT(tried, 1'000'000U);
    std::printf("%zu bits\n", tried);
}

TEST_F(Damage, OfAnotherVersionIsRefusedAndNothingIsTouched) {
    make(true);
    if (HasFatalFailure()) return;
    const auto refuse = [&](const std::string& what, std::string_view says) {
        const auto before = all_files(home_);
        SilentLogger silent;
        SegmentStore store(small(home_), silent);
        Told told;
        const auto done = store.recover(told);
        ASSERT_FALSE(done) << what;
        EXPECT_EQ(done.error().code, EPROTO) << what << done.error().message();
        EXPECT_NE(done.error().message().find(says), std::string::npos) << done.error().message();
        EXPECT_TRUE(all_files(home_) == before) << what;
        EXPECT_EQ(told.messages, 0U);
    };
    const std::pair<std::uint32_t, std::string_view> others[] = {
        {kFormatVersion + 1, "a newer version"},
        {kFormatVersion - 1, "let that version deliver what is left in it, or move the directory"}};
    for (const auto& [version, says] : others) {
        // The epoch file says it...
        restore();
        std::string epoch = read_all(home_ + "/current/epoch");
        for (const std::size_t at : {0U, 4096U}) {
            auto slot = load<EpochSlot>(as_span(epoch).subspan(at));
            slot.version = version;
            slot.crc = 0;
            slot.crc = crc32c(bytes_of(slot));
            std::memcpy(epoch.data() + at, &slot, sizeof slot);
        }
        write_all_of(home_ + "/current/epoch", epoch);
        refuse("epoch", says);
        // ... or a segment.
        restore();
        for (const auto& entry : fs::directory_iterator(home_ + "/current/journal")) {
            std::string data = read_all(entry.path());
            auto header = load<SegmentHeader>(as_span(data));
            header.version = version;
            header = sealed(header);
            std::memcpy(data.data(), &header, sizeof header);
            write_all_of(entry.path(), data);
            break;
        }
        refuse("segment", says);
    }
}

TEST_F(Damage, OfAStoreThatSomebodyElseHasOpenIsRefused) {
    SilentLogger silent;
    SegmentStore first(small(home_), silent);
    Told told;
    ASSERT_TRUE(first.recover(told));
    ASSERT_TRUE(first.open());
    const pid_t other = ::fork();
    if (other == 0) {
        SegmentStore second(small(home_), silent);
        const auto done = second.recover(told);
        ::_exit(!done && done.error().code == EBUSY ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(other, &status, 0), other);
    EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ipcfs::store
