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
#include <show.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

// Converts the words after the channel to lines for `ctl`.
class ControlLines {
public:
    explicit ControlLines(const std::vector<std::string>& words) {
        for (std::size_t at = 0; at < words.size();) {
            const std::string& word = words[at++];
            refuse_newlines(word);
            std::string line = word;
            bool alone = word == "purge" || word == "resume" || word == "redrive";
            bool maybe = word == "pause";
            bool value = at < words.size() && !alone && (!maybe || parse_duration(words[at]));
            if (value) {
                refuse_newlines(words[at]);
                line += " " + words[at++];
                // The only setting with two words: `batch 64 5ms`.
                if (word == "batch" && parse_number(words[at - 1]) && at < words.size() &&
                    parse_duration(words[at]) && !parse_number(words[at])) {
                    line += " " + words[at++];
                }
            } else if (!alone && !maybe) {
                fail(kUsage, escape_controls(word) +
                                 ": a value is missing (ipcfs ctl CHANNEL KEY VALUE ...)");
            }
            text_ += line + "\n";
        }
    }
    const std::string& text() const { return text_; }

private:
    static void refuse_newlines(const std::string& word) {
        if (word.find('\n') != std::string::npos || word.empty()) {
            fail(kUsage, "a key or value must not be empty or contain a newline");
        }
    }
    std::string text_;
};

bool is_command(std::string_view word) {
    constexpr std::array<std::string_view, 4> kCommands{"purge", "pause", "resume", "redrive"};
    return std::find(kCommands.begin(), kCommands.end(), word) != kCommands.end();
}

int show_settings(const Globals& globals, const Channel& channel, const std::string& key) {
    Pairs settings = parse_pairs(read_file_or_fail(channel.file("ctl"), channel.shown("ctl")));
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
    print(globals.json ? Json().object({*at}).take() : for_output(at->second) + "\n");
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
    int error = write_once(channel.file("ctl"), ControlLines(options.words).text());
    if (error == 0) return kOk;
    std::string reason(find(read_status(channel), "last-error"));
    // ENOENT: the region to revoke does not exist.
    if ((error == EINVAL || error == ENOENT) && !reason.empty()) {
        fail(kError, channel.shown() + ": " + escape_controls(reason) + "; nothing was changed");
    }
    if (error == EBUSY) {
        fail(kError, channel.shown() +
                         ": it is in use; the type can only be changed while the channel "
                         "is empty and nobody has it open");
    }
    fail_errno(channel.shown("ctl"), error);
}

// Completes keys and commands, or the values of the preceding key or command.
std::vector<std::string> next_words(const Tree& tree, const std::vector<std::string>& operands) {
    Channel channel = tree.locate(operands.front());
    std::vector<std::string> words;
    auto add = [&](std::string_view word) { words.emplace_back(word); };
    if (operands.size() % 2 == 0 && operands.back() == "revoke") {
        for (const std::string& each : names_in(channel.file("share"))) add("share/" + each);
    } else if (operands.size() % 2 == 0) {
        for (std::string_view value : split(setting_values(operands.back()), ' ')) add(value);
    } else {
        for (const auto& [key, value] : parse_pairs(read_file(channel.file("ctl")).value_or(""))) {
            add(key);
        }
        if (words.empty()) words = setting_keys();
        for (const char* word : {"purge", "pause", "resume", "redrive", "revoke"}) add(word);
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
        takes.add("words", &options.words, "",
                  "Nothing: show all. KEY: show one. KEY VALUE...: set all, or none on an error.\n"
                  "Or a command: purge, pause [DURATION], resume, redrive, revoke share/NAME");
    },
    control, next_words);

}  // namespace
}  // namespace ipcfs::client
