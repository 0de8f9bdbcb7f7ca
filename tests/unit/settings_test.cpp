// Settings: what ctl takes and shows.
#include <gtest/gtest.h>

#include <channel/settings.hpp>

namespace ipcfs::channel {
namespace {

TEST(Settings, ShowWhatTheyTake) {
    EXPECT_EQ(print(Settings{}),
              "type queue\ncapacity 1000\nbytes 100M\nmax-message 1044480\nmax-payload 4G\n"
              "payloads sealed\nhigh-watermark 80\nlow-watermark 20\noverflow block\nschedule "
              "strict\nttl 0\ntimeout 5s\ndurable off\nmax-deliveries 5\nlease 30s\nbatch off\n"
              "retain 0\n"
              "notify-rate 1000/s\n");
    auto again = parse_control(print(Settings{}), Settings{});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->settings, Settings{});
    EXPECT_TRUE(again->commands.empty());
}

TEST(Settings, EveryKeySurvivesItsOwnText) {
    auto control = parse_control(
        "type sync\ncapacity 17\nbytes 3M\nmax-message 4K\nhigh-watermark 100\nlow-watermark 0\n"
        "overflow drop-newest\nschedule fair\nttl 1500ms\ntimeout 2h\nnotify-rate 5\n"
        "durable async\nmax-deliveries 17\nlease 1ms\nretain 3\n",
        Settings{});
    ASSERT_TRUE(control) << control.error().operation;
    for (const SettingRow& row : setting_rows()) {
        const std::string_view key = row.key;
        Settings copy;
        ASSERT_TRUE(set(copy, key, get(control->settings, key))) << key;
        EXPECT_EQ(get(copy, key), get(control->settings, key));
    }
    auto again = parse_control(print(control->settings), Settings{});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->settings, control->settings);
}

TEST(Settings, NameEveryType) {
    for (const char* type : {"queue", "sync", "batch", "topic", "multicast", "stream"}) {
        auto control = parse_control(std::string("type ") + type, Settings{});
        ASSERT_TRUE(control) << type;
        EXPECT_STREQ(name_of(control->settings.type), type);
    }
    EXPECT_FALSE(parse_control("type service", Settings{}));
}

TEST(Settings, ABatchIsItsTypesUntilItIsSet) {
    auto batch = [](const Settings& s) { return get(s, "batch"); };
    auto to = [](const Settings& s, std::string_view text) {
        return parse_control(text, s)->settings;
    };
    const Settings type_batch = to(Settings{}, "type batch");
    EXPECT_EQ(batch(type_batch), "64 5ms");
    EXPECT_EQ(type_batch.batch_gate(), kDefaultBatch);
    EXPECT_EQ(batch(to(type_batch, "type queue")), "off");
    EXPECT_EQ(batch(to(type_batch, "batch off")), "off");
    EXPECT_EQ(batch(to(Settings{}, "batch off\ntype batch")), "off");
    EXPECT_EQ(batch(to(Settings{}, "batch 7 \t 2s")), "7 2s");
    EXPECT_EQ(batch(to(to(Settings{}, "batch 7 2s"), "type topic")), "7 2s");
    // What is printed says no more than what was there.
    EXPECT_EQ(parse_control(print(type_batch), Settings{})->settings, type_batch);
    EXPECT_EQ(batch(to(to(type_batch, print(type_batch)), "type queue")), "off");
}

TEST(Settings, ThatContradictEachOtherAreRefusedTogether) {
    for (const char* text : {"type stream\ndurable async\n", "durable sync\ntype stream\n",
                             "type sync\nbatch 7 5ms\n", "batch 64 5ms\ntype sync\n"}) {
        auto refused = parse_control(text, Settings{});
        ASSERT_FALSE(refused) << text;
        EXPECT_EQ(refused.error().code, EINVAL);
    }
    EXPECT_TRUE(parse_control("type sync\nbatch off\n", Settings{}));
    EXPECT_TRUE(parse_control("type stream\nbatch 7 5ms\n", Settings{}));
}

TEST(Settings, PassOverCommentsBlankLinesAndSpaces) {
    auto control = parse_control("\n# about\n   capacity\t 7  \r\n\n  #bytes 1\n", Settings{});
    ASSERT_TRUE(control);
    EXPECT_EQ(control->settings.capacity, 7U);
    EXPECT_EQ(control->settings.bytes, Settings{}.bytes);
}

TEST(Settings, TheLastLineNeedsNoEnd) {
    auto control = parse_control("capacity 7", Settings{});
    ASSERT_TRUE(control);
    EXPECT_EQ(control->settings.capacity, 7U);
}

TEST(Settings, CommandsComeInTheirOrder) {
    auto control = parse_control("purge\npause 2s\nttl 1s\nresume\nredrive\npause\n", Settings{});
    ASSERT_TRUE(control);
    using Kind = Command::Kind;
    EXPECT_EQ(control->commands, (std::vector<Command>{{Kind::kPurge, 0, {}},
                                                       {Kind::kPause, 2 * kSecond, {}},
                                                       {Kind::kResume, 0, {}},
                                                       {Kind::kRedrive, 0, {}},
                                                       {Kind::kPause, 0, {}}}));
    EXPECT_EQ(control->settings.ttl, kSecond);
}

TEST(Settings, RevokeNamesOneRegionOfShare) {
    auto control = parse_control("revoke share/frames\n", Settings{});
    ASSERT_TRUE(control);
    ASSERT_EQ(control->commands.size(), 1U);
    EXPECT_EQ(control->commands[0].kind, Command::Kind::kRevoke);
    EXPECT_EQ(control->commands[0].region, "frames");
    for (const char* line : {"revoke", "revoke frames", "revoke share/", "revoke share/a/b"}) {
        EXPECT_FALSE(parse_control(line, Settings{})) << line;
    }
}

TEST(Settings, WhatIsWrongIsRefusedWithItsLine) {
    for (const char* line : {"capacity",
                             "capacity 0",
                             "capacity -1",
                             "capacity 1 2",
                             "capacity 99999999999999999999",
                             "bytes 0",
                             "bytes 2T",
                             "bytes 1048577M",
                             "max-message 1020K1",
                             "max-message 1044481",
                             "max-message 0",
                             "high-watermark 0",
                             "high-watermark 101",
                             "low-watermark -1",
                             "low-watermark 101",
                             "overflow drop",
                             "overflow",
                             "schedule fairly",
                             "ttl 5",
                             "ttl -1s",
                             "ttl 1d",
                             "timeout x",
                             "timeout 24001h",
                             "notify-rate 0/s",
                             "notify-rate 1000001",
                             "notify-rate 5/m",
                             "purge now",
                             "resume 1s",
                             "pause 5",
                             "pause 1s 2s",
                             "drop",
                             "Type queue",
                             "type service",
                             "type Queue",
                             "durable on",
                             "max-deliveries 0",
                             "max-deliveries 1000001",
                             "lease 0",
                             "lease 30",
                             "lease 24001h",
                             "batch",
                             "batch 64",
                             "batch 0 5ms",
                             "batch 65537 5ms",
                             "batch 64 0",
                             "batch 64 5",
                             "batch 5ms 64",
                             "batch 64 5ms 1",
                             "batch on",
                             "retain -1",
                             "retain 1000001",
                             "redrive all",
                             "retries 3",
                             "capacity=7"}) {
        auto control = parse_control(std::string("ttl 1s\n") + line + "\n", Settings{});
        ASSERT_FALSE(control) << line;
        EXPECT_EQ(control.error().code, EINVAL) << line;
        EXPECT_EQ(control.error().operation.substr(0, 8), "line 2: ") << control.error().operation;
    }
}

TEST(Settings, TheWatermarksAreComparedWhenAllIsRead) {
    EXPECT_TRUE(parse_control("high-watermark 10\nlow-watermark 5\n", Settings{}));
    EXPECT_TRUE(parse_control("low-watermark 90\nhigh-watermark 95\n", Settings{}));
    EXPECT_TRUE(parse_control("low-watermark 80\n", Settings{}));
    auto refused = parse_control("low-watermark 81\n", Settings{});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EINVAL);
}

TEST(Settings, TooLongATextIsRefused) {
    EXPECT_TRUE(parse_control(std::string(65536, '\n'), Settings{}));
    EXPECT_FALSE(parse_control(std::string(65537, '\n'), Settings{}));
}

TEST(Settings, MarksAreRoundedUpAndDownWithoutOverflow) {
    Settings s;
    s.capacity = 7;
    s.high_watermark = 50;
    s.low_watermark = 50;
    EXPECT_EQ(s.high_mark(), 4U);
    EXPECT_EQ(s.low_mark(), 3U);
    s.bytes = UINT64_MAX;
    s.high_watermark = 100;
    EXPECT_EQ(s.high_mark_bytes(), UINT64_MAX);
    s.capacity = 1;
    s.high_watermark = 1;
    s.low_watermark = 0;
    EXPECT_EQ(s.high_mark(), 1U);
    EXPECT_EQ(s.low_mark(), 0U);
}

}  // namespace
}  // namespace ipcfs::channel
