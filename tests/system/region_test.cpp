// Regions and page_map of the client header on a real mount: what is granted, what is taken away, and
// what changes hands.
#include <cstring>
#include <fcntl.h>
#include <functional>
#include <string>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "child.hpp"
#include "daemon_fixture.hpp"
#include <ipcfs/channel.hpp>
#include <ipcfs/page_map.hpp>
#include <ipcfs/region.hpp>

namespace ipcfs::test {
namespace {

constexpr std::size_t kRegionSize = (std::size_t{3} << 20) + 100;

void die_by_the_signal() {
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);
    ::signal(SIGBUS, SIG_DFL);
    ::signal(SIGSEGV, SIG_DFL);
}

void fill(std::span<std::byte> bytes, unsigned seed) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
        bytes[i] = static_cast<std::byte>(i * 7 + (i >> 12) + seed);
}

bool filled(std::span<const std::byte> bytes, unsigned seed) {
    for (std::size_t i = 0; i < bytes.size(); ++i)
        if (bytes[i] != static_cast<std::byte>(i * 7 + (i >> 12) + seed)) return false;
    return !bytes.empty();
}

// Of a value, or the errno of why there is none; 0 means that it is there.
template <class T>
int code(const Expected<T>& result) {
    return result ? 0 : result.error().code;
}

class Regions : public MountedTest {
protected:
    void SetUp() override {
        MountedTest::SetUp();
        if (HasFatalFailure() || IsSkipped()) return;
        make_channel("grid");
        auto opened = Channel::open(at("grid"));
        ASSERT_TRUE(opened) << opened.error().message();
        channel_.emplace(std::move(*opened));
    }
    void TearDown() override {
        channel_.reset();
        MountedTest::TearDown();
    }

    Channel& channel() { return *channel_; }
    // A region of this process', filled.
    std::optional<Region> make(std::string_view name, mode_t mode = 0600, unsigned seed = 1) {
        auto made = Region::create(channel(), name, kRegionSize, mode);
        EXPECT_TRUE(made) << made.error().message();
        if (!made) return std::nullopt;
        auto memory = made->map();
        EXPECT_TRUE(memory) << memory.error().message();
        if (!memory) return std::nullopt;
        fill(memory->writable_bytes(), seed);
        return std::move(*made);
    }
    long counter(const std::string& name) {
        for (const Row& row : parse_table(slurp(at("kern/ipc/stats/mappings"))))
            if (row.at("state") == name) return number(row.at("count"));
        return -1;
    }

private:
    std::optional<Channel> channel_;
};

TEST_F(Regions, AreSharedByThoseWhoMapThem) {
    const Events written;
    const Events answered;
    Child other([&, path = at("grid")](std::string& text) {
        if (!written.await()) return 1;
        auto mine = Channel::open(path);
        auto region = Region::open(*mine, "one");
        if (!region) {
            text = region.error().message();
            return region.error().code;
        }
        auto memory = region->map(Access::read_write);
        if (!memory) return memory.error().code;
        if (memory->size() != kRegionSize || !filled(memory->bytes(), 1)) return 2;
        memory->writable_bytes()[kRegionSize - 1] = std::byte{42};
        return answered.tell() ? 0 : 3;
    });
    auto region = make("one");
    ASSERT_TRUE(region);
    EXPECT_EQ(region->size().value_or(0), kRegionSize);
    auto memory = region->map();
    ASSERT_TRUE(written.tell());
    ASSERT_TRUE(answered.await());
    EXPECT_EQ(memory->bytes()[kRegionSize - 1], std::byte{42});
    EXPECT_EQ(other.wait(), 0) << other.text();
}

TEST_F(Regions, AreMappedAsAskedForAndAllowed) {
    auto region = make("one");
    ASSERT_TRUE(region);
    auto reader = Region::open(channel(), "one", Access::read_only);
    ASSERT_TRUE(reader) << reader.error().message();
    auto view = reader->map(Access::read_only);
    ASSERT_TRUE(view) << view.error().message();
    EXPECT_TRUE(filled(view->bytes(), 1));
    EXPECT_TRUE(view->writable_bytes().empty());
    EXPECT_EQ(code(reader->map(Access::read_write)), EACCES);
    auto copy = reader->map(Access::copy_on_write);
    ASSERT_TRUE(copy) << copy.error().message();
    fill(copy->writable_bytes(), 2);
    EXPECT_TRUE(filled(copy->bytes(), 2));
    EXPECT_TRUE(filled(view->bytes(), 1));
    // Mappings need neither the Region nor the Channel.
    region.reset();
    reader = Error{};
    EXPECT_TRUE(filled(view->bytes(), 1));
}

TEST_F(Regions, HaveNamesThatAreTakenOnceAndEnd) {
    auto region = make("one");
    ASSERT_TRUE(region);
    EXPECT_EQ(code(Region::create(channel(), "one", 10)), EEXIST);
    EXPECT_EQ(code(Region::open(channel(), "two")), ENOENT);
    for (const char* name : {"", ".", "..", "a/b", "../ctl", "new\nline"}) {
        EXPECT_EQ(code(Region::create(channel(), name, 10)), EINVAL) << name;
        EXPECT_EQ(code(Region::open(channel(), name)), EINVAL) << name;
    }
    auto memory = region->map();
    ASSERT_TRUE(region->unlink());
    EXPECT_EQ(code(Region::open(channel(), "one")), ENOENT);
    EXPECT_TRUE(filled(memory->bytes(), 1));
    ASSERT_TRUE(Region::create(channel(), "one", 10));
}

TEST_F(Regions, ChangeTheirSize) {
    auto region = make("one");
    ASSERT_TRUE(region);
    ASSERT_TRUE(region->resize(2 * kRegionSize));
    auto memory = region->map();
    ASSERT_TRUE(memory);
    EXPECT_EQ(memory->size(), 2 * kRegionSize);
    EXPECT_TRUE(filled(memory->bytes().first(kRegionSize), 1));
    EXPECT_EQ(memory->bytes()[2 * kRegionSize - 1], std::byte{0});
    ASSERT_EQ(ctl("grid", "max-payload 8M\n"), 0);
    EXPECT_EQ(code(region->resize(9 << 20)), EFBIG);
    EXPECT_EQ(code(Region::create(channel(), "two", 9 << 20)), EFBIG);
    EXPECT_EQ(code(Region::open(channel(), "two")), ENOENT);
}

TEST_F(Regions, AreForThoseTheyAreGrantedTo) {
    auto region = make("one", 0600);
    ASSERT_TRUE(region);
    const auto open_as = [&](uid_t uid, Access access) {
        return Child(Child::As{uid, -1},
                     [&, path = at("grid")](std::string&) {
                         auto mine = Channel::open(path);
                         if (!mine) return 100;
                         return code(Region::open(*mine, "one", access));
                     })
            .wait()
            .value_or(-1);
    };
    EXPECT_EQ(open_as(kAlice, Access::read_only), EACCES);
    ASSERT_TRUE(region->grant(0644));
    EXPECT_EQ(open_as(kAlice, Access::read_only), 0);
    EXPECT_EQ(open_as(kAlice, Access::read_write), EACCES);
    ASSERT_TRUE(region->grant(0666));
    EXPECT_EQ(open_as(kBob, Access::read_write), 0);
    ASSERT_TRUE(region->grant(0));
    EXPECT_EQ(open_as(kBob, Access::read_only), EACCES);
}

TEST_F(Regions, AreTakenAwayByRevoking) {
    const Events mapped;
    const Events revoked;
    auto region = make("one", 0644);
    ASSERT_TRUE(region);
    Child other(Child::As{kAlice, -1}, [&, path = at("grid")](std::string&) {
        die_by_the_signal();
        auto mine = Channel::open(path);
        auto theirs = Region::open(*mine, "one", Access::read_only);
        if (!theirs) return theirs.error().code;
        auto memory = theirs->map(Access::read_only);
        if (!memory || !filled(memory->bytes(), 1)) return 1;
        if (!mapped.tell() || !revoked.await()) return 2;
        return filled(memory->bytes(), 1) ? 3 : 4;
    });
    ASSERT_TRUE(mapped.await());
    ASSERT_TRUE(region->grant(0600));
    const auto done = region->revoke();
    ASSERT_TRUE(done) << done.error().message();
    ASSERT_TRUE(revoked.tell());
    EXPECT_EQ(other.wait(), 1000 + SIGBUS);
    // The content is there again, for those who still may.
    auto again = region->map();
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_TRUE(filled(again->bytes(), 1));
    EXPECT_EQ(counter("revocations"), 1);
}

TEST_F(Regions, ChangeHandsByAMessage) {
    const Events received;
    const Events go;
    make_channel("next");
    Child taker([&, path = at("next")](std::string& text) {
        auto mine = Channel::open(path);
        auto message = mine->receive(kPatience);
        if (!message) return message.error().code;
        if (message->type() != FrameType::kHandoff || message->size() != kRegionSize) return 1;
        if (message->correlation_id() != 9 || message->priority() != 255) return 2;
        if (code(page_map(*message)) != ENOTSUP) return 3;
        if (!received.tell() || !go.await()) return 4;
        auto region = Region::claim(*message);
        if (!region) {
            text = region.error().message();
            return region.error().code;
        }
        if (code(Region::claim(*message)) != EPERM) return 5;
        if (!region->name().empty() || code(region->unlink()) != EINVAL) return 6;
        auto memory = region->map(Access::read_write);
        if (!memory || !filled(memory->bytes(), 5)) return 7;
        fill(memory->writable_bytes(), 6);
        return filled(memory->bytes(), 6) && region->resize(2 * kRegionSize) ? 0 : 8;
    });
    auto target = Channel::open(at("next"));
    ASSERT_TRUE(target);
    auto region = make("one", 0600, 5);
    ASSERT_TRUE(region);
    auto mine = region->map();
    SendOptions options;
    options.priority = 255;
    options.correlation_id = 9;
    const auto sent = std::move(*region).hand_off(*target, options);
    ASSERT_TRUE(sent) << sent.error().message();
    EXPECT_EQ(code(Region::open(channel(), "one")), ENOENT);
    Child toucher([&](std::string&) {
        die_by_the_signal();
        return filled(mine->bytes(), 5) ? 1 : 2;
    });
    EXPECT_EQ(toucher.wait(), 1000 + SIGBUS);
    ASSERT_TRUE(received.await());
    // Nobody but the receiver may claim it, root neither.
    for (std::uint64_t id = 1; id < 10; ++id) {
        auto stolen =
            detail::Connection::request(daemon().mount(), ControlOp::kClaim, ControlId{id});
        EXPECT_FALSE(stolen) << id;
    }
    ASSERT_TRUE(go.tell());
    EXPECT_EQ(taker.wait(), 0) << taker.text();
    EXPECT_EQ(counter("handoffs"), 1);
}

TEST_F(Regions, StayWhereTheyAreWhenTheyCannotBeHandedOver) {
    make_channel("tight", "capacity 2\nhigh-watermark 50\n");
    auto target = Channel::open(at("tight"));
    ASSERT_TRUE(target);
    ASSERT_EQ(send("tight", "a"), 0);
    auto region = make("one");
    ASSERT_TRUE(region);
    SendOptions now;
    now.timeout = Timeout::zero();
    EXPECT_EQ(code(std::move(*region).hand_off(*target, now)), EAGAIN);
    auto memory = region->map();
    ASSERT_TRUE(memory) << memory.error().message();
    EXPECT_TRUE(filled(memory->bytes(), 1));
    EXPECT_EQ(code(Region::open(channel(), "one")), 0);
    // Waiting, it goes as soon as there is room.
    Child reader([&, path = at("tight")](std::string&) {
        auto mine = Channel::open(path);
        if (auto first = mine->receive(kPatience); !first || first->text() != "a") return 1;
        auto second = mine->receive(kPatience);
        if (!second) return second.error().code;
        auto claimed = Region::claim(*second);
        if (!claimed) return claimed.error().code;
        auto mapped = claimed->map();
        return mapped && filled(mapped->bytes(), 1) ? 0 : 2;
    });
    EXPECT_EQ(code(std::move(*region).hand_off(*target)), 0);
    EXPECT_EQ(reader.wait(), 0);
    EXPECT_EQ(code(std::move(*region).hand_off(*target)), EINVAL);  // it has it no more
}

TEST_F(Regions, AreNotTakenFromWhoMayNot) {
    auto region = make("one", 0644);
    ASSERT_TRUE(region);
    make_channel("hers");
    ASSERT_EQ(::chown(at("hers").c_str(), kAlice, kAlice), 0);
    Child alice(Child::As{kAlice, -1}, [&, grid = at("grid"), hers = at("hers")](std::string&) {
        auto from = Channel::open(grid);
        auto to = Channel::open(hers);
        if (!from || !to) return 100;
        auto theirs = Region::open(*from, "one", Access::read_only);
        if (!theirs) return 101;
        if (code(theirs->resize(0)) == 0) return 1;
        if (code(theirs->grant(0666)) != EPERM) return 2;
        if (code(theirs->revoke()) != EACCES) return 3;
        if (code(Region::claim(Message())) != EINVAL) return 4;
        return code(std::move(*theirs).hand_off(*to));
    });
    EXPECT_EQ(alice.wait(), EACCES);
    EXPECT_TRUE(filled(region->map()->bytes(), 1));
}

TEST_F(Regions, AreAForkedChildsToo) {
    auto region = make("one");
    ASSERT_TRUE(region);
    Child other([&](std::string&) {
        // Inherited, and shared still.
        auto memory = region->map();
        if (!memory) return memory.error().code;
        fill(memory->writable_bytes(), 3);
        return 0;
    });
    EXPECT_EQ(other.wait(), 0);
    EXPECT_TRUE(filled(region->map()->bytes(), 3));
}

// What is not lazy; lazy_test.cpp has the rest.
using PageMap = Regions;

TEST_F(PageMap, GivesTheBodyWhateverKindItIs) {
    for (const char* payloads : {"payloads sealed\n", "payloads pooled\n"}) {
        ASSERT_EQ(ctl("grid", payloads), 0);
        for (const std::size_t size : {std::size_t{0}, std::size_t{100}, kRegionSize}) {
            auto loan = channel().loan(size);
            ASSERT_TRUE(loan) << loan.error().message();
            std::vector<std::byte> bytes(size);
            fill(bytes, 4);
            if (size != 0) std::memcpy(loan->data(), bytes.data(), size);
            auto sent = channel().send(std::move(*loan));
            ASSERT_TRUE(sent) << sent.error().message();
            auto message = channel().receive(kPatience);
            ASSERT_TRUE(message) << message.error().message();
            auto view = page_map(*message);
            ASSERT_TRUE(view) << view.error().message();
            auto copy = page_map(*message, Access::copy_on_write);
            ASSERT_TRUE(copy) << copy.error().message();
            auto range = page_map(*message, LazyMapOptions{});
            ASSERT_TRUE(range) << range.error().message();
            EXPECT_EQ(range->why(), "the message is not lazy");
            EXPECT_EQ(code(page_map(*message, Access::read_write)), EACCES);
            message = Message();  // the mappings keep what they need
            EXPECT_EQ(view->size(), size);
            EXPECT_TRUE(view->writable_bytes().empty());
            ASSERT_EQ(copy->writable_bytes().size(), size);
            if (size == 0) continue;
            EXPECT_TRUE(filled(copy->bytes(), 4));
            fill(copy->writable_bytes(), 5);
            EXPECT_TRUE(filled(view->bytes(), 4));
            EXPECT_TRUE(filled(range->bytes(), 4));
            EXPECT_TRUE(range->fetch(0, size));
        }
    }
}

}  // namespace
}  // namespace ipcfs::test
