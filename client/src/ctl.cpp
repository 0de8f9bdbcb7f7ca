// `ipcfs ctl`: shows and changes the settings of a channel, and sends it commands. One thread.
#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <string_view>
#include <vector>

#include <command.hpp>
#include <completion.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <settings.hpp>
#include <show.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr std::array<std::string_view, 5> kCommands{"purge", "pause", "resume", "redrive",
                                                    "revoke"};
bool is_command(std::string_view word) {
    return std::find(kCommands.begin(), kCommands.end(), word) != kCommands.end();
}

// Converts the words after the channel to lines for `ctl`.
std::string control_lines(const std::vector<std::string>& words) {
    std::string text;
    for (std::size_t at = 0; at < words.size();) {
        const std::string& word = words[at++];
        const bool given = at < words.size();
        bool takes = !is_command(word) || word == "revoke";
        text += word;
        if (takes && !given) {
            fail(kUsage,
                 escape_controls(word) + ": a value is missing (ipcfs ctl CHANNEL KEY VALUE ...)");
        }
        if (takes || (word == "pause" && given && parse_duration(words[at]))) {
            text += " " + words[at++];
        }
        // The only setting with two words: `batch 64 5ms`.
        if (word == "batch" && parse_number(words[at - 1]) && at < words.size() &&
            parse_duration(words[at]) && !parse_number(words[at])) {
            text += " " + words[at++];
        }
        text += "\n";
    }
    return text;
}

int show_settings(const Globals& globals, const Channel& channel, const std::string& key) {
    Pairs settings = channel.read_or_fail("ctl");
    if (key.empty()) {
        show(globals, settings);
        return kOk;
    }
    auto same = [&](const auto& pair) { return pair.first == key; };
    auto at = std::find_if(settings.begin(), settings.end(), same);
    if (at == settings.end()) {
        std::string known;
        for (const auto& pair : settings) known += " " + pair.first;
        fail(kError,
             channel.shown() + " has no setting " + escape_controls(key) + "; there are:" + known);
    }
    print(globals.json ? to_line(to_json(Pairs{*at})) : for_output(at->second) + "\n");
    return kOk;
}

struct ControlOptions {
    std::string channel;
    std::vector<std::string> words;
};

int control(const Globals& globals, const ControlOptions& options) {
    Tree tree(globals.mount);
    Channel channel = tree.channel(options.channel);
    if (options.words.empty()) return show_settings(globals, channel, "");
    if (options.words.size() == 1 && !is_command(options.words.front())) {
        return show_settings(globals, channel, options.words.front());
    }
    for (const std::string& word : options.words) {
        if (word.find('\n') != std::string::npos || word.empty()) {
            fail(kUsage, "a key or value must not be empty or contain a newline");
        }
    }
    int error = write_once(channel.file("ctl"), control_lines(options.words));
    if (error == 0) return kOk;
    // ENOENT: the region to revoke does not exist.
    if (error == EINVAL || error == ENOENT) {
        fail(kError, channel.shown() + ": " + channel.reason(error) + "; nothing was changed");
    }
    if (error == EBUSY) {
        fail(kError, channel.shown() +
                         ": it is in use; the type can only be changed while the channel "
                         "is empty and nobody has it open");
    }
    fail_errno(channel.shown("ctl"), error);
}

// Completes keys and commands, or the values of the preceding key: all words, or the present number.
std::vector<std::string> next_words(const Tree& tree, const std::vector<std::string>& operands) {
    Channel channel = tree.locate(operands.front());
    std::vector<std::string> words;
    if (operands.size() % 2 == 1) {
        for (const auto& pair : channel.read("ctl")) words.push_back(pair.first);
        words.insert(words.end(), kCommands.begin(), kCommands.end());
        return words;
    }
    const std::string& key = operands.back();
    if (key == "revoke") {
        for (const std::string& each : names_in(channel.file("share"))) {
            words.push_back("share/" + each);
        }
    } else if (key == "pause") {
        for (std::string_view each : split(kDurations, ' ')) words.emplace_back(each);
    } else {
        words = setting_words(tree, key);
        if (words.empty()) words.push_back(channel.find("ctl", key));
    }
    return words;
}

Registration<ControlOptions> g_ctl(
    Group::kChannels, "ctl", "Show or change settings; purge, pause, resume",
    "  ipcfs ctl jobs\n"
    "  ipcfs ctl jobs capacity\n"
    "  ipcfs ctl jobs capacity 5000 overflow reject\n"
    "  ipcfs ctl jobs durable sync\n"
    "  ipcfs ctl ticks batch 64 5ms\n"
    "  ipcfs ctl jobs pause 30s\n"
    "  ipcfs ctl jobs purge\n"
    "  ipcfs ctl video revoke share/frames",
    [](Command& takes, ControlOptions& options) {
        takes.channel(options.channel);
        takes.lists_settings = true;
        takes.add("words", &options.words, "",
                  "Nothing: show all. KEY: show one. KEY VALUE...: set all, or none on an error.\n"
                  "Or a command: purge, pause [DURATION], resume, redrive, revoke share/NAME");
    },
    control, next_words);

}  // namespace
}  // namespace ipcfs::client
