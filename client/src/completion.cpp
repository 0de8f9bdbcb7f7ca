// Shell completion. Offers nothing, and reports nothing, if something cannot be found out.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <iterator>

#include <completion.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

constexpr std::string_view kDurations = "0 100ms 1s 5s 30s 1m 1h";

struct Offer {
    std::string_view key;
    std::string_view words;
};

// Completions by the type of a value, unless its parameter sets them.
constexpr std::array<Offer, 6> kTypes{{{"CHANNEL", "@channel"},
                                       {"DIR", "@directory"},
                                       {"DURATION", kDurations},
                                       {"FILE", "@file"},
                                       {"MODE", "700 750 755 770 777"},
                                       {"N", "0 1 10 100"}}};

constexpr std::array<Offer, 18> kSettings{{{"type", "queue sync batch topic multicast stream"},
                                           {"capacity", "10 100 1000 10000"},
                                           {"bytes", "1M 10M 100M 1G"},
                                           {"max-message", "4K 64K 1044480"},
                                           {"max-payload", "64M 1G 4G 16G"},
                                           {"payloads", "sealed pooled"},
                                           {"high-watermark", "100 90 80 70"},
                                           {"low-watermark", "0 10 20 30"},
                                           {"overflow", "block reject drop-oldest drop-newest"},
                                           {"schedule", "strict fair"},
                                           {"ttl", kDurations},
                                           {"timeout", kDurations},
                                           {"durable", "off async sync"},
                                           {"max-deliveries", "1 3 5 10"},
                                           {"lease", "10s 30s 5m 1h"},
                                           {"batch", "off 64"},
                                           {"retain", "0 1 10 100"},
                                           {"notify-rate", "10/s 100/s 1000/s"}}};

// Words of `ctl` that are not settings, with their arguments.
constexpr std::array<Offer, 2> kAfter{{{"pause", kDurations}, {"64", "5ms 100ms"}}};

std::string_view look_up(const auto& offers, std::string_view key) {
    auto at =
        std::find_if(offers.begin(), offers.end(), [&](auto& each) { return each.key == key; });
    return at == offers.end() ? std::string_view{} : at->words;
}

class Completion {
public:
    Completion(const std::vector<Command*>& commands, const std::vector<std::string>& words)
        : commands_(commands), word_(words.back()) {
        for (at_ = words.begin(); at_ + 1 != words.end(); ++at_) look_at(words);
    }

    void run() {
        if (unknown_) return;
        if (value_ != nullptr) return offer(*value_);
        if (command_ == nullptr) return offer_commands();
        if (word_.starts_with('-') && !verbatim_) return offer_options();
        if (const Parameter* operand = next_operand()) offer(*operand);
        if (!operands_.empty()) {
            for (auto& word : command_->next_words(tree(), operands_)) add(std::move(word));
        }
    }

    std::string answer() const {
        bool open = found_.size() == 1 && (found_[0].ends_with('/') || found_[0].ends_with('='));
        std::string out = open ? "nospace" : how_;
        for (const std::string& each : found_) out.append(1, '\0').append(each);
        return out + '\0';
    }

private:
    // ---- parsing the words before the cursor ----

    void look_at(const std::vector<std::string>& words) {
        const std::string& word = *at_;
        if (verbatim_ || !word.starts_with('-')) {
            if (command_ != nullptr) return operands_.push_back(word);
            auto same = [&](const Command* each) { return each->name == word; };
            auto found = std::find_if(commands_.begin(), commands_.end(), same);
            unknown_ = found == commands_.end();
            if (!unknown_) command_ = *found;
            return;
        }
        if (word == "--") {
            verbatim_ = true;
            return;
        }
        std::size_t equals = word.find('=');
        const Parameter* option = find_option(word.substr(0, equals));
        if (option == nullptr || option->is_flag()) return;
        std::string value = equals == std::string::npos ? "" : word.substr(equals + 1);
        if (equals == std::string::npos) {
            // Bash splits --mount=DIR into three words.
            if (at_ + 2 != words.end() && at_[1] == "=") ++at_;
            if (at_ + 2 == words.end()) {
                value_ = option;
                return;
            }
            value = *++at_;
        }
        if (option == &mount_) mount_value_ = value;
    }

    static bool is_called(const Parameter& parameter, std::string_view name) {
        auto names =
            split(std::string_view(parameter.names).substr(0, parameter.names.find('{')), ',');
        return std::find(names.begin(), names.end(), name) != names.end();
    }

    const Parameter* find_option(std::string_view name) const {
        if (is_called(mount_, name)) return &mount_;
        if (command_ == nullptr) return nullptr;
        for (const Parameter& each : command_->parameters()) {
            if (is_called(each, name)) return &each;
        }
        return nullptr;
    }

    // The last operand of a command may repeat.
    const Parameter* next_operand() const {
        const Parameter* last = nullptr;
        std::size_t count = 0;
        for (const Parameter& each : command_->parameters()) {
            if (!each.is_operand()) continue;
            last = &each;
            if (count++ == operands_.size()) return last;
        }
        bool many = last && std::holds_alternative<std::vector<std::string>*>(last->target);
        return many ? last : nullptr;
    }

    // ---- collecting completions ----

    void add(std::string candidate) {
        if (!candidate.empty() && candidate.starts_with(word_))
            found_.push_back(std::move(candidate));
    }
    void add_all(std::string_view words) {
        for (std::string_view each : split(words, ' ')) add(std::string(each));
    }

    void offer_commands() {
        if (word_.starts_with('-'))
            return add_all("--mount --json --quiet --help --help-all --version");
        for (const Command* each : commands_) add(each->name);
    }

    void offer_options() {
        add_all("--mount --json --quiet --help");
        for (const Parameter& each : command_->parameters()) {
            std::string_view names(each.names);
            auto at = names.find("--");
            if (at != std::string_view::npos) {
                add(std::string(names.substr(at, names.find('{') - at)));
            } else if (each.words == "@command") {
                add("--");
            }
        }
    }

    void offer(const Parameter& parameter) {
        std::string words = parameter.words.value_or(std::string(look_up(kTypes, parameter.type)));
        for (std::string_view each : split(words, ' ')) {
            if (!each.starts_with('@')) {
                add(std::string(each));
            } else if (each == "@channel" || each == "@queue") {
                offer_channels(each == "@queue");
            } else if (each == "@subscription") {
                if (operands_.empty()) continue;
                for (auto& name : tree().locate(operands_[0]).subscriptions()) add(std::move(name));
            } else if (each == "@setting") {
                for (const std::string& key : setting_keys()) add(key + "=");
            } else if (each == "@command") {
                offer_command_line();
            } else {
                how_ = each == "@file" ? "files" : "directories";
            }
        }
        // A condition's remaining words belong to the same argument.
        if (parameter.type == "CONDITION") how_ = "nospace";
    }

    void offer_command_line() {
        if (!verbatim_) return add("--");
        how_ = operands_.size() == 1 ? "commands" : "files";
    }

    // Channels that complete the word, followed by a slash if they have sub-channels.
    void offer_channels(bool queues) {
        std::string typed = word_.substr(0, word_.rfind('/') + 1);
        // A path to the tree starts with directories that are not channels.
        std::string root = tree().root() + "/";
        if (word_.starts_with('/') && word_.size() < root.size()) return add(root);
        Channel parent = typed.empty() ? Channel{"", tree().root()} : tree().locate(typed);
        for (const std::string& name : tree().children(parent)) {
            if (!name.starts_with(word_.substr(typed.size()))) continue;
            Channel channel{name, parent.file(name)};
            add(typed + name);
            if (!tree().children(channel).empty()) add(typed + name + "/");
            if (!queues) continue;
            for (const auto& each : channel.subscriptions()) add(typed + name + "/subs/" + each);
        }
    }

    const Tree& tree() {
        if (!tree_) {
            bool home = mount_value_.starts_with("~/") && std::getenv("HOME") != nullptr;
            tree_.emplace(home ? std::getenv("HOME") + mount_value_.substr(1) : mount_value_);
        }
        return *tree_;
    }

    const std::vector<Command*>& commands_;
    const std::string& word_;
    std::vector<std::string>::const_iterator at_;
    std::string mount_value_;  // as typed, ~ not expanded
    const Parameter mount_{"--mount", &mount_value_, "DIR", ""};
    const Command* command_ = nullptr;
    bool unknown_ = false;              // the command is unknown
    const Parameter* value_ = nullptr;  // the option whose value is being completed
    std::vector<std::string> operands_;
    bool verbatim_ = false;  // after "--"
    std::optional<Tree> tree_;
    std::string how_;
    std::vector<std::string> found_;
};

}  // namespace

int complete(const std::vector<Command*>& commands, const std::vector<std::string>& words) {
    if (words.empty()) return kUsage;
    Completion completion(commands, words);
    try {
        completion.run();
    } catch (const Failure&) {
        // No tree or no such channel: print what was found before.
    }
    print(completion.answer());
    return kOk;
}

std::vector<std::string> setting_keys() {
    std::vector<std::string> keys;
    for (const Offer& each : kSettings) keys.emplace_back(each.key);
    return keys;
}

std::string_view setting_values(std::string_view key) {
    std::string_view values = look_up(kSettings, key);
    return values.empty() ? look_up(kAfter, key) : values;
}

}  // namespace ipcfs::client
