// Filters of subscriptions: what is refused and why, the one form that they are printed in, what they
// let through.
#include "topic_fixture.hpp"

namespace ipcfs::channel {
namespace {

const Filter::Users kUsers = [](const std::string& name) -> std::optional<uid_t> {
    if (name == "alice") return 1001;
    return std::nullopt;
};

std::shared_ptr<const Filter> parsed(std::string_view text) {
    auto filter = Filter::parse(text, kUsers);
    EXPECT_TRUE(filter) << filter.error().operation;
    return filter ? *filter : nullptr;
}
std::string refusal(std::string_view text) {
    auto filter = Filter::parse(text, kUsers);
    if (filter) return "(taken)";
    EXPECT_EQ(filter.error().code, EINVAL);
    return filter.error().operation;
}

struct Case {
    Topics topics;
    bool takes(std::string_view filter, const queue::MessageRef& message,
               bool is_multicast = false) {
        Examined examined(*message);
        auto made = parsed(filter);
        return made->matches(examined, made->reaches(""), is_multicast);
    }
};

TEST(Filter, PrintsEveryConditionInOneForm) {
    auto filter = parsed(
        "# mine\n"
        "\n"
        " group  b, a,b\r\n"
        "recursive on\n"
        "channel **/x\n"
        "regex ^a b$\n"
        "prefix  two spaces\n"
        "sender pid 7\n"
        "sender user alice\n"
        "method get*\n"
        "type event,data\n"
        "priority normal-high");
    ASSERT_TRUE(filter);
    EXPECT_EQ(filter->text(),
              "priority 128-192\n"
              "type data,event\n"
              "method get*\n"
              "sender uid 1001\n"
              "sender pid 7\n"
              "prefix  two spaces\n"
              "regex ^a b$\n"
              "channel **/x\n"
              "recursive on\n"
              "group a,b\n");
    EXPECT_EQ(parsed(filter->text())->text(), filter->text());
    EXPECT_TRUE(filter->is_recursive());
    EXPECT_EQ(parsed("")->text(), "");
    EXPECT_EQ(parsed("recursive off\n")->text(), "");
    EXPECT_EQ(parsed("priority critical")->text(), "priority 255\n");
    EXPECT_EQ(parsed("priority 0")->text(), "priority 0\n");
}

TEST(Filter, IsRefusedWholeWithTheLineAndTheReason) {
    EXPECT_EQ(refusal("priority 1\nprority 2"),
              "line 2: no such condition: 'prority'; there are priority type method sender prefix "
              "regex channel recursive group");
    for (std::string_view bad : {"priority",
                                 "priority 256",
                                 "priority high-low",
                                 "priority -1",
                                 "type",
                                 "type dta",
                                 "type data,",
                                 "method",
                                 "method [a",
                                 "method a\\",
                                 "sender",
                                 "sender uid x",
                                 "sender uid 4294967295",
                                 "sender user bob",
                                 "sender pid 0",
                                 "prefix",
                                 "prefix ",
                                 "regex",
                                 "regex (",
                                 "regex \xff",
                                 "channel",
                                 "recursive",
                                 "recursive maybe",
                                 "group",
                                 "group a,,b",
                                 "group a b",
                                 "priority 1\npriority 2",
                                 "type data\ntype event",
                                 "regex a\nregex b",
                                 "sender uid 1\nsender user alice",
                                 "group a\ngroup b",
                                 "recursive on\nrecursive on",
                                 "prefix a\nprefix b"}) {
        EXPECT_TRUE(refusal(bad).starts_with("line ")) << bad << ": " << refusal(bad);
    }
    EXPECT_TRUE(refusal(std::string_view("prefix a\0b", 10)).starts_with("line 1: "));
    EXPECT_EQ(refusal(std::string(65537, '\n')), "filter: more than 65536 bytes");
    EXPECT_TRUE(refusal("regex " + std::string(5000, 'a')).starts_with("line 1: regex"));
    // One that would take much memory.
    EXPECT_TRUE(refusal("regex ((a{100}){100}){100}").starts_with("line 1: regex"));
}

TEST(Filter, LetsThroughWhatMeetsAllConditions) {
    Case c;
    auto hello = c.topics.message("hello world\n", 192, {}, "greet.all");
    hello->envelope.type = 3;
    for (std::string_view takes :
         {"", "priority 192", "priority high-high", "priority 0-200", "type event",
          "type data,event", "method greet.*", "method gr??t.a[kl]l", "sender uid 1002",
          "sender pid 77", "prefix hello", "regex wor?ld", "regex ^hello world$", "regex (?i)HELLO",
          "channel *", "channel **", "recursive on",
          "priority 192\ntype event\nmethod *\nsender uid 1002\nprefix hell\nregex o w"}) {
        EXPECT_TRUE(c.takes(takes, hello)) << takes;
    }
    for (std::string_view refuses :
         {"priority 193", "priority 0-191", "type data", "method greet", "sender uid 1001",
          "sender pid 78", "prefix ello", "regex ^world", "channel a", "channel a/**", "group some",
          "priority 192\nprefix nothing"}) {
        EXPECT_FALSE(c.takes(refuses, hello)) << refuses;
    }
}

TEST(Filter, LooksAtNoMoreThanTheBeginningOfAContent) {
    Case c;
    auto long_one = c.topics.message(std::string(65535, 'x') + "yz");
    EXPECT_TRUE(c.takes("regex y", long_one));
    EXPECT_FALSE(c.takes("regex z", long_one));
}

TEST(Filter, OfATopicAsksForOneOfItsGroupsBesideTheRest) {
    Case c;
    auto red = c.topics.message("x", 9, {"red", "blue"});
    EXPECT_TRUE(c.takes("group green,blue", red));
    EXPECT_FALSE(c.takes("group green", red));
    EXPECT_FALSE(c.takes("group red\npriority 10", red));
    EXPECT_FALSE(c.takes("group red", c.topics.message("x")));
}

TEST(Filter, OfAMulticastTakesWhatIsForItsGroupsOrMeetsTheRest) {
    Case c;
    auto red = c.topics.message("x", 9, {"red"});
    auto plain = c.topics.message("x", 9);
    EXPECT_TRUE(c.takes("group red,green", red, true));
    EXPECT_FALSE(c.takes("group green", red, true));
    EXPECT_FALSE(c.takes("group red", plain, true));
    EXPECT_TRUE(c.takes("group red\npriority 10", red, true));
    EXPECT_FALSE(c.takes("group red\npriority 10", plain, true));
    EXPECT_TRUE(c.takes("group green\npriority 9", red, true));
    EXPECT_TRUE(c.takes("group green\npriority 9", plain, true));
    EXPECT_TRUE(c.takes("priority 9", red, true));
    EXPECT_TRUE(c.takes("", red, true));
    EXPECT_TRUE(c.takes("", plain, true));
}

TEST(Glob, MatchesPathsAsAShellDoes) {
    auto matches = [](std::string_view pattern, std::string_view text) {
        auto glob = Glob::parse(pattern, true);
        EXPECT_TRUE(glob) << pattern;
        return glob && glob->matches(text);
    };
    EXPECT_TRUE(matches("*", "a"));
    EXPECT_TRUE(matches("*", ""));
    EXPECT_FALSE(matches("*", "a/b"));
    EXPECT_TRUE(matches("**", "a/b/c"));
    EXPECT_TRUE(matches("*/log", "a/log"));
    EXPECT_FALSE(matches("*/log", "a/b/log"));
    EXPECT_TRUE(matches("**/log", "a/b/log"));
    EXPECT_TRUE(matches("**/log", "log"));
    EXPECT_FALSE(matches("**/log", "xlog"));
    EXPECT_FALSE(matches("**/log", "a/xlog"));
    EXPECT_TRUE(matches("a/**/b", "a/b"));
    EXPECT_TRUE(matches("a/**/b", "a/x/y/b"));
    EXPECT_FALSE(matches("a/**/b", "a/xb"));
    EXPECT_TRUE(matches("a/**", "a/x/y"));
    EXPECT_FALSE(matches("a/**", "a"));
    EXPECT_TRUE(matches("s[0-9a]?", "s5x"));
    EXPECT_FALSE(matches("s[!0-9]", "s5"));
    EXPECT_TRUE(matches("s[]x]", "s]"));
    EXPECT_FALSE(matches("a?b", "a/b"));
    EXPECT_FALSE(matches("a[!x]b", "a/b"));
    EXPECT_TRUE(matches("\\*", "*"));
    EXPECT_FALSE(matches("\\*", "x"));
    EXPECT_TRUE(matches("**a**b**", "xxaxxbxx"));
}

TEST(Glob, TakesNoLongerForAPatternOfManyStars) {
    std::string stars;
    for (int i = 0; i < 120; ++i) stars += "*a";
    auto glob = Glob::parse(stars + "b", false);
    ASSERT_TRUE(glob);
    EXPECT_FALSE(glob->matches(std::string(4000, 'a')));  // or this test takes for ever
    std::string deep;
    for (int i = 0; i < 84; ++i) deep += "**/";
    auto path = Glob::parse(deep + "b", true);
    ASSERT_TRUE(path);
    std::string many;
    for (int i = 0; i < 2000; ++i) many += "a/";
    EXPECT_TRUE(path->matches(many + "b"));
    EXPECT_FALSE(path->matches(many));
}

}  // namespace
}  // namespace ipcfs::channel
