// The configuration: files, settings of the command line, errors with their places, reload plans.
#include <filesystem>
#include <fstream>
#include <sstream>
#include <unistd.h>

#include <gtest/gtest.h>

#include <base/units.hpp>
#include <daemon/config.hpp>
#include <daemon/instance.hpp>
#include <daemon/keys.hpp>
#include <daemon/options.hpp>

namespace ipcfs::daemon {
namespace {

ConfigSource source_of(std::string text, std::vector<Setting> settings = {}) {
    ConfigSource source;
    source.process = {
        .uid = 0, .home = "/root", .runtime_dir = {}, .state_home = {}, .cwd = "/work"};
    source.file = "f.toml";
    source.text = std::move(text);
    source.settings = std::move(settings);
    return source;
}

Parsed read(std::string text, std::vector<Setting> settings = {}) {
    return read_config(source_of(std::move(text), std::move(settings)));
}

using Errors = std::vector<std::string>;
using access::Resource;

std::uint64_t limit(const access::Limits& limits, Resource of) {
    return limits[static_cast<std::size_t>(of)];
}

TEST(Config, OfAnEmptyFileIsTheDefaults) {
    Parsed parsed = read("");
    EXPECT_EQ(parsed.errors, Errors{});
    EXPECT_EQ(parsed.config.mount, "/ipc");
    EXPECT_EQ(parsed.config.state, "/var/lib/ipcfs");
    EXPECT_EQ(parsed.config.fuse, FuseConfig{});
    EXPECT_EQ(parsed.config.limits, LimitsConfig{});
    EXPECT_EQ(parsed.config.channel, channel::Settings{});
}

TEST(Config, PutsAnOrdinaryUsersTreeInTheirOwnDirectories) {
    ConfigSource source;
    source.process = {.uid = 1000,
                      .home = "/home/u",
                      .runtime_dir = "/run/user/1000",
                      .state_home = "/s",
                      .cwd = "/"};
    EXPECT_EQ(read_config(source).config.mount, "/run/user/1000/ipc");
    EXPECT_EQ(read_config(source).config.state, "/s/ipcfs");
    source.process.runtime_dir.clear();
    source.process.state_home = "relative";
    EXPECT_EQ(read_config(source).config.mount, "/home/u/ipc");
    EXPECT_EQ(read_config(source).config.state, "/home/u/.local/state/ipcfs");
}

TEST(Config, ReadsEveryKind) {
    Parsed parsed = read(R"(
mount = "/m"
[fuse]
transport = "uring"
queue-depth = 4
allow-other = false
entry-timeout = "20ms"
attr-timeout = 0
debug = true
[log]
level = "trace"
target = "file"
file = "/l"
max-size = 8192
[limits]
messages = "unlimited"
bytes = "2G"
total-bytes = 12345
payload-bytes = "3G"
[payload]
reserve = "1M"
[store]
kind = "off"
max-size = "1G"
[channel]
overflow = "drop-oldest"
schedule = "fair"
ttl = "1h"
notify-rate = "7/s"
max-message = "64K"
)");
    ASSERT_EQ(parsed.errors, Errors{});
    const Config& c = parsed.config;
    EXPECT_EQ(c.mount, "/m");
    EXPECT_EQ(c.fuse.transport, Transport::kUring);
    EXPECT_EQ(c.fuse.queue_depth, 4u);
    EXPECT_EQ(c.fuse.allow_other, AllowOther::kNo);
    EXPECT_EQ(c.fuse.entry_timeout, 20 * kMillisecond);
    EXPECT_EQ(c.fuse.attr_timeout, 0);
    EXPECT_TRUE(c.fuse.debug);
    EXPECT_EQ(c.log.level, Level::kTrace);
    EXPECT_EQ(c.log.target, LogTarget::kFile);
    EXPECT_EQ(c.log.max_size, 8192u);
    EXPECT_EQ(limit(c.limits.user, Resource::kMessages), kUnlimited);
    EXPECT_EQ(limit(c.limits.user, Resource::kBytes), 2ULL << 30);
    EXPECT_EQ(c.limits.total_bytes, 12345u);
    EXPECT_EQ(limit(c.limits.user, Resource::kPayloadBytes), 3ULL << 30);
    EXPECT_EQ(c.payload.reserve, 1ULL << 20);
    EXPECT_EQ(c.store.kind, StoreKind::kOff);
    EXPECT_EQ(c.store.max_size, 1ULL << 30);
    EXPECT_EQ(c.channel.overflow, channel::Overflow::kDropOldest);
    EXPECT_EQ(c.channel.schedule, queue::Schedule::kFair);
    EXPECT_EQ(c.channel.ttl, 3600 * kSecond);
    EXPECT_EQ(c.channel.notify_rate, 7u);
    EXPECT_EQ(c.channel.max_message, 65536u);
}

TEST(Config, TellsEveryErrorWithItsPlaceAndWhatIsAllowedInTheOrderOfTheFile) {
    Parsed parsed = read(
        "mount = \"ipc\"\n"
        "[log]\n"
        "  level = \"loud\"\n"
        "[fuse]\n"
        "queue-dept = 5\n"
        "queue-depth = 0\n"
        "entry-timeout = \"5\"\n"
        "[channel]\n"
        "capacity = \"many\"\n"
        "overflow = [1]\n"
        "[chanel]\n"
        "a = 1\n"
        "b = 2\n");
    EXPECT_EQ(
        parsed.errors,
        (Errors{
            "f.toml:1:9: mount = \"ipc\": must be an absolute path",
            "f.toml:3:11: log.level = \"loud\": must be one of \"trace\", \"debug\", \"info\", "
            "\"warn\", \"error\", \"critical\", \"off\"",
            "f.toml:5:1: unknown key \"fuse.queue-dept\"; known in [fuse] are: transport, "
            "queue-depth, threads, passthrough, allow-other, survive, entry-timeout, attr-timeout, "
            "debug",
            "f.toml:6:15: fuse.queue-depth = 0: must be a whole number from 1 to 65536",
            "f.toml:7:17: fuse.entry-timeout = \"5\": must be a duration such as \"5ms\", "
            "\"30s\", \"1h\" or 0, from 0 to 8760h",
            "f.toml:9:12: channel.capacity = \"many\": must be a number of messages from 1 to "
            "4294967296",
            "f.toml:10:12: channel.overflow = an array: must be one of block, reject, "
            "drop-oldest, drop-newest",
            "f.toml:11:2: unknown key \"chanel\"; known at the top are: mount, state, and the "
            "sections fuse, log, limits, payload, store, channel",
        }));
}

TEST(Config, TellsWhereTheSyntaxIsWrong) {
    Parsed parsed = read("mount = \"/m\"\n[log\nlevel = 1\n");
    ASSERT_EQ(parsed.errors.size(), 1u);
    EXPECT_EQ(parsed.errors[0].rfind("f.toml:2:5: ", 0), 0u) << parsed.errors[0];
}

TEST(Config, RefusesASectionThatIsAValueAndAValueThatIsASection) {
    EXPECT_EQ(read("fuse = 3\n").errors, Errors{"f.toml:1:8: fuse = 3: must be a section, [fuse]"});
    EXPECT_EQ(read("[log.level]\nx = 1\n").errors.size(), 1u);
    EXPECT_EQ(read("[limits.user]\nalice = 3\n").errors.size(), 1u);
    EXPECT_EQ(read("[limits]\nuser = 3\n").errors.size(), 1u);
}

// One character off in any direction is refused: no value is silently clipped.
TEST(Config, RefusesWhatIsJustOutOfRange) {
    for (const char* bad : {"fuse.queue-depth=65537",
                            "fuse.queue-depth=-1",
                            "fuse.queue-depth=4294967297",
                            "fuse.queue-depth=99999999999999999999",
                            "fuse.threads=1025",
                            "fuse.transport=URING",
                            "fuse.allow-other=yes",
                            "fuse.debug=1",
                            "fuse.entry-timeout=8761h",
                            "fuse.attr-timeout=-1s",
                            "log.max-size=4095",
                            "log.max-files=0",
                            "limits.messages=-1",
                            "limits.messages=1G",
                            "limits.bytes=1T",
                            "limits.bytes=17179869184G",
                            "channel.capacity=0",
                            "channel.capacity=4294967297",
                            "channel.max-message=1044481",
                            "channel.max-message=0",
                            "channel.high-watermark=101",
                            "channel.notify-rate=x",
                            "channel.capacity=1K",
                            "channel.type=service",
                            "channel.batch=0 1ms",
                            "channel.lease=0",
                            "channel.max-deliveries=0",
                            "channel.durable=on",
                            "store.kind=lmdb",
                            "store.max-size=1K",
                            "fuse.survive=maybe",
                            "channel.notify-rate=0/s",
                            "channel.notify-rate=1000001/s",
                            "channel.ttl=5",
                            "channel.timeout=24001h",
                            "channel.schedule=",
                            "mount=",
                            "x=1",
                            "fuse=1",
                            "limits.user.0=1",
                            "limits.user=1",
                            "limits.user.0.x=1",
                            "limits.user..bytes=1",
                            "limits.user.4294967295.bytes=1"}) {
        const std::string text = bad;
        const auto equals = text.find('=');
        Parsed parsed = read("", {{text.substr(0, equals), text.substr(equals + 1), "--set"}});
        ASSERT_EQ(parsed.errors.size(), 1u) << bad;
        EXPECT_EQ(parsed.errors[0].rfind("--set: ", 0), 0u) << parsed.errors[0];
        EXPECT_EQ(parsed.config, read("").config) << bad << " changed something";
    }
}

TEST(Config, AcceptsTheEndsOfEveryRange) {
    for (const char* good :
         {"fuse.queue-depth=1", "fuse.queue-depth=65536", "fuse.threads=1024",
          "fuse.entry-timeout=8760h", "log.max-size=4K", "channel.capacity=4294967296",
          "channel.max-message=1", "channel.notify-rate=1000000/s", "channel.high-watermark=100",
          "channel.low-watermark=0", "limits.bytes=0", "limits.total-bytes=unlimited"}) {
        const std::string text = good;
        const auto equals = text.find('=');
        EXPECT_EQ(read("", {{text.substr(0, equals), text.substr(equals + 1), "--set"}}).errors,
                  Errors{})
            << good;
    }
}

TEST(Config, ChecksWhatHoldsBetweenKeys) {
    EXPECT_EQ(read("[channel]\nlow-watermark = 81\n").errors,
              Errors{"f.toml:2:17: [channel]: low-watermark 81 is above high-watermark 80"});
    EXPECT_EQ(read("", {{"log.target", "file", "--log-target"}}).errors,
              Errors{"--log-target: log.target = \"file\": needs log.file, an absolute path"});
}

TEST(Config, LetsSettingsWinOverTheFileAndLaterOnesOverEarlierOnes) {
    Parsed parsed =
        read("mount = \"/file\"\n[limits]\nmessages = 1\n", {{"mount", "/env", "IPCFS_MOUNT"},
                                                             {"mount", "/option", "--mount"},
                                                             {"limits.messages", "5", "--set"}});
    ASSERT_EQ(parsed.errors, Errors{});
    EXPECT_EQ(parsed.config.mount, "/option");
    EXPECT_EQ(limit(parsed.config.limits.user, Resource::kMessages), 5u);
}

TEST(Config, TakesARelativePathOfTheCommandLineFromTheWorkingDirectory) {
    EXPECT_EQ(read("", {{"mount", "m", "--mount"}}).config.mount, "/work/m");
}

TEST(Config, GivesUsersTheirOwnLimitsByNameOrUid) {
    Parsed parsed = read("[limits]\nwaiters = 3\n[limits.user.1234]\nbytes = \"1M\"\n",
                         {{"limits.user.root.messages", "9", "--set"}});
    ASSERT_EQ(parsed.errors, Errors{});
    access::Limits other = limits_for(parsed.config, 1, 0);
    EXPECT_EQ(limit(other, Resource::kWaiters), 3u);
    EXPECT_EQ(limit(other, Resource::kBytes), 1ULL << 30);
    access::Limits given = limits_for(parsed.config, 1234, 0);
    EXPECT_EQ(limit(given, Resource::kBytes), 1u << 20);
    EXPECT_EQ(limit(given, Resource::kWaiters), 3u);
    access::Limits root = limits_for(parsed.config, 0, 0);
    EXPECT_EQ(limit(root, Resource::kMessages), 9u);
    EXPECT_EQ(limit(root, Resource::kWaiters), kUnlimited);
    EXPECT_EQ(limit(limits_for(parsed.config, 1, 1), Resource::kWaiters), kUnlimited)
        << "the daemon's own user";
}

TEST(Config, RefusesAnUnknownUserAndOneUserUnderTwoNames) {
    EXPECT_EQ(read("[limits.user.no-such-user]\nbytes = 1\nmessages = 1\n").errors,
              Errors{"f.toml:2:9: limits.user.no-such-user: no such user; a name from the user "
                     "database or a uid is allowed"});
    Parsed twice = read("[limits.user.root]\nbytes = 1\n[limits.user.0]\nbytes = 2\n");
    ASSERT_EQ(twice.errors.size(), 1u);
    EXPECT_EQ(twice.errors[0].rfind("f.toml:4:9: limits.user.0: uid 0 already", 0), 0u)
        << twice.errors[0];
}

// Values other than the defaults, so that a key that is not written out is missed.
const std::vector<Setting> kAllChanged{{"mount", "/a \"b\"\\\t\x01", "t"},
                                       {"state", "/ü", "t"},
                                       {"fuse.transport", "classic", "t"},
                                       {"fuse.queue-depth", "17", "t"},
                                       {"fuse.threads", "3", "t"},
                                       {"fuse.passthrough", "off", "t"},
                                       {"fuse.allow-other", "true", "t"},
                                       {"fuse.entry-timeout", "1500us", "t"},
                                       {"fuse.attr-timeout", "0", "t"},
                                       {"fuse.debug", "true", "t"},
                                       {"log.level", "off", "t"},
                                       {"log.target", "journald", "t"},
                                       {"log.file", "/x", "t"},
                                       {"log.max-size", "4097", "t"},
                                       {"log.max-files", "9", "t"},
                                       {"limits.messages", "0", "t"},
                                       {"limits.bytes", "unlimited", "t"},
                                       {"limits.channels", "2", "t"},
                                       {"limits.open-files", "3", "t"},
                                       {"limits.waiters", "4", "t"},
                                       {"limits.payload-bytes", "5G", "t"},
                                       {"limits.total-bytes", "unlimited", "t"},
                                       {"payload.reserve", "0", "t"},
                                       {"store.kind", "off", "t"},
                                       {"store.max-size", "1G", "t"},
                                       {"channel.capacity", "5", "t"},
                                       {"channel.bytes", "6K", "t"},
                                       {"channel.max-message", "7", "t"},
                                       {"channel.max-payload", "8", "t"},
                                       {"channel.payloads", "pooled", "t"},
                                       {"channel.high-watermark", "8", "t"},
                                       {"channel.low-watermark", "7", "t"},
                                       {"channel.overflow", "reject", "t"},
                                       {"channel.schedule", "fair", "t"},
                                       {"channel.ttl", "1ns", "t"},
                                       {"channel.timeout", "0", "t"},
                                       {"channel.notify-rate", "2/s", "t"},
                                       {"channel.type", "topic", "t"},
                                       {"channel.durable", "async", "t"},
                                       {"channel.max-deliveries", "9", "t"},
                                       {"channel.lease", "1m", "t"},
                                       {"channel.batch", "10 1ms", "t"},
                                       {"channel.retain", "7", "t"},
                                       {"fuse.survive", "false", "t"},
                                       {"limits.user.7.messages", "1", "t"},
                                       {"limits.user.7.bytes", "2K", "t"},
                                       {"limits.user.7.channels", "3", "t"},
                                       {"limits.user.7.open-files", "4", "t"},
                                       {"limits.user.7.waiters", "unlimited", "t"},
                                       {"limits.user.7.payload-bytes", "9", "t"},
                                       {"limits.user.8.bytes", "0", "t"}};

TEST(Config, WrittenOutReadsBackEqual) {
    for (const std::vector<Setting>& settings : {std::vector<Setting>{}, kAllChanged}) {
        Parsed first = read("", settings);
        ASSERT_EQ(first.errors, Errors{});
        const std::string text = to_toml(first.config);
        Parsed second = read(text);
        EXPECT_EQ(second.errors, Errors{}) << text;
        EXPECT_TRUE(second.config == first.config) << text;
    }
    for (const Key& key : keys()) {
        Config changed = read("", kAllChanged).config;
        EXPECT_NE(key.render(changed), key.render(read("").config)) << key.name << " is not tested";
    }
}

TEST(Config, ReloadTakesOverLogLimitsAndChannelsAndNamesTheRest) {
    const Config running = read("").config;
    const Config wanted = read("", kAllChanged).config;
    Reload plan = plan_reload(running, wanted);
    EXPECT_EQ(plan.config.log, wanted.log);
    EXPECT_EQ(plan.config.limits, wanted.limits);
    EXPECT_EQ(plan.config.payload, wanted.payload);
    EXPECT_EQ(plan.config.channel, wanted.channel);
    EXPECT_EQ(plan.config.fuse, running.fuse);
    EXPECT_EQ(plan.config.mount, running.mount);
    EXPECT_EQ(plan.restart,
              (Errors{"mount", "state", "fuse.transport", "fuse.queue-depth", "fuse.threads",
                      "fuse.passthrough", "fuse.allow-other", "fuse.survive", "fuse.entry-timeout",
                      "fuse.attr-timeout", "fuse.debug", "store.kind", "store.max-size"}));
    EXPECT_EQ(plan.changed.size(), keys().size() - plan.restart.size() + 1) << "and limits.user";
    Reload nothing = plan_reload(running, running);
    EXPECT_EQ(nothing.changed, Errors{});
    EXPECT_EQ(nothing.restart, Errors{});
}

// conf/ipcfs.toml shows every key, commented out, with its default.
TEST(Config, FileShippedDocumentsEveryKeyWithItsDefault) {
    std::ifstream file(IPCFS_SOURCE_DIR "/conf/ipcfs.toml");
    ASSERT_TRUE(file) << "conf/ipcfs.toml";
    std::string shipped, uncommented;
    bool in_example = false;
    for (std::string line; std::getline(file, line);) {
        shipped += line + '\n';
        if (line.rfind("# [limits.user.", 0) == 0) in_example = true;
        if (line.rfind('[', 0) == 0) in_example = false;
        std::string word;
        std::string equals;
        std::istringstream words(line.substr(0, 1) == "#" ? line.substr(1) : std::string());
        const bool assignment = words >> word >> equals && equals == "=";
        uncommented += (assignment && !in_example ? line.substr(2) : line) + '\n';
    }
    EXPECT_EQ(read(shipped).errors, Errors{});
    EXPECT_TRUE(read(shipped).config == read("").config);
    Parsed parsed = read(uncommented);
    EXPECT_EQ(parsed.errors, Errors{});
    EXPECT_EQ(to_toml(parsed.config), to_toml(read("").config));
    for (const Key& key : keys()) {
        const auto dot = key.name.rfind('.');
        const std::string leaf = dot == std::string::npos ? key.name : key.name.substr(dot + 1);
        EXPECT_NE(shipped.find("\n# " + leaf + " = "), std::string::npos) << key.name;
    }
}

TEST(Config, DocumentationTellsEveryKey) {
    const auto read_text = [](const char* name) {
        std::ifstream file(std::string(IPCFS_SOURCE_DIR "/docs/") + name);
        return std::string(std::istreambuf_iterator<char>(file), {});
    };
    const std::string configuration = read_text("configuration.md"), tree = read_text("tree.md");
    const auto cells = [](const auto&... cell) {
        std::string row = "\n|";
        ((row.append(" ").append(cell).append(" |")), ...);
        return row + "\n";
    };
    const auto code = [](std::string text) { return "`" + std::move(text) + "`"; };
    const Config defaults = read("").config;
    for (const Key& key : keys()) {
        EXPECT_FALSE(key.help.empty()) << key.name;
        if (key.name.starts_with("channel.")) continue;  // they are in docs/tree.md
        const std::string row =
            cells(code(key.name.substr(key.name.rfind('.') + 1)), code(key.render(defaults)),
                  key.allowed, key.reloadable ? "yes" : "no", key.help);
        EXPECT_NE(configuration.find(row), std::string::npos) << "configuration.md:" << row;
    }
    for (const channel::SettingRow& row : channel::setting_rows()) {
        const std::string text =
            cells(code(std::string(row.key)), code(row.print({})), row.values, row.help);
        EXPECT_NE(tree.find(text), std::string::npos) << "tree.md:" << text;
    }
    EXPECT_NE(reference(defaults).find("fuse.threads = 0\n"), std::string::npos);
}

TEST(Options, TurnIntoSettingsInTheOrderOfPrecedence) {
    const char* argv[] = {"ipcfsd",  "--set", "fuse.threads=3", "--set", "log.level=warn",
                          "--mount", "/m",    "--log-level",    "debug", "--no-allow-other",
                          "-f"};
    int code = -1;
    auto options = parse_options(std::size(argv), argv, &code);
    ASSERT_TRUE(options);
    EXPECT_TRUE(options->foreground);
    EXPECT_FALSE(options->config_given);
    EXPECT_EQ(options->config_file, kDefaultConfigFile);
    Parsed parsed = read("", options->settings);
    ASSERT_EQ(parsed.errors, Errors{});
    EXPECT_EQ(parsed.config.mount, "/m");
    EXPECT_EQ(parsed.config.fuse.threads, 3u);
    EXPECT_EQ(parsed.config.fuse.allow_other, AllowOther::kNo);
    EXPECT_EQ(parsed.config.log.level, Level::kWarn) << "--set comes last";
}

TEST(Options, EndTheProcessWithTwoWhenTheyAreWrong) {
    for (const char* wrong :
         {"--no-such-option", "--set=nonsense", "--set==1", "extra", "--mount"}) {
        const char* argv[] = {"ipcfsd", wrong};
        int code = -1;
        EXPECT_FALSE(parse_options(2, argv, &code)) << wrong;
        EXPECT_EQ(code, kExitUsage) << wrong;
    }
    const char* argv[] = {"ipcfsd", "--version"};
    int code = -1;
    EXPECT_FALSE(parse_options(2, argv, &code));
    EXPECT_EQ(code, kExitOk);
}

TEST(Options, WantAConfigurationFileThatWasNamedToExist) {
    Options options;
    options.config_file = "/no/such/file.toml";
    EXPECT_EQ(load_config(options, {}).errors, Errors{});
    options.config_given = true;
    EXPECT_EQ(load_config(options, {}).errors,
              Errors{"/no/such/file.toml: cannot be read: No such file or directory"});
}

TEST(Instance, NamesTheLockOfAMountPointAsDocumented) {
    EXPECT_EQ(lock_path("/ipc", 0, "/run/user/0"), "/run/ipcfs/!ipc.lock");
    EXPECT_EQ(lock_path("/run/user/7/ipc", 7, "/run/user/7"),
              "/run/user/7/ipcfs/!run!user!7!ipc.lock");
    EXPECT_EQ(lock_path("/a!b/100%", 7, ""), "/tmp/ipcfs-7/!a%21b!100%25.lock");
}

class InDirectory : public testing::Test {
protected:
    InDirectory() {
        char name[] = "/tmp/ipcfs-test-XXXXXX";
        directory_ = mkdtemp(name);
    }
    ~InDirectory() override { std::filesystem::remove_all(directory_); }
    std::string directory_;
};

TEST_F(InDirectory, LockIsHeldByOneAtATimeAndTellsWhoHasIt) {
    const std::string file = directory_ + "/x/!ipc.lock";
    pid_t holder = -1;
    {
        auto first = InstanceLock::take(file, &holder);
        ASSERT_TRUE(first) << first.error().message();
        auto second = InstanceLock::take(file, &holder);
        ASSERT_FALSE(second);
        EXPECT_EQ(second.error().code, EBUSY);
        EXPECT_EQ(holder, getpid());
    }
    EXPECT_FALSE(std::filesystem::exists(file));
    std::ofstream(file) << "1\n";
    EXPECT_TRUE(InstanceLock::take(file, &holder)) << "a file that nobody has locked means nothing";
}

TEST_F(InDirectory, LockIsRefusedInADirectoryThatOthersCanWriteTo) {
    std::filesystem::permissions(directory_, std::filesystem::perms::all);
    pid_t holder = 0;
    auto lock = InstanceLock::take(directory_ + "/l.lock", &holder);
    ASSERT_FALSE(lock);
    EXPECT_EQ(lock.error().code, EPERM);
}

TEST_F(InDirectory, MountPointHasOneNameHoweverItIsWritten) {
    std::filesystem::create_directory(directory_ + "/real");
    std::filesystem::create_directory_symlink("real", directory_ + "/link");
    const std::string name = std::filesystem::canonical(directory_).string() + "/real";
    EXPECT_EQ(canonical_mount(directory_ + "/real"), name);
    EXPECT_EQ(canonical_mount(directory_ + "/real/"), name);
    EXPECT_EQ(canonical_mount(directory_ + "/./x/../real"), name);
    EXPECT_EQ(canonical_mount(directory_ + "/link"), name);
    EXPECT_EQ(canonical_mount(directory_ + "/link/sub"), name + "/sub");
    EXPECT_EQ(canonical_mount("/no/such"), "/no/such");
    EXPECT_EQ(canonical_mount("/"), "/");
}

}  // namespace
}  // namespace ipcfs::daemon
