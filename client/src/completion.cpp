// Shell completion. Offers nothing, and reports nothing, if something cannot be found out.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include <completion.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <settings.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

// Completions by the type of a value, unless its parameter sets them.
constexpr std::array<std::pair<std::string_view, const char*>, 6> kTypes{
    {{"CHANNEL", "@channel"},
     {"DIR", "@directory"},
     {"DURATION", kDurations},
     {"FILE", "@file"},
     {"MODE", "700 750 755 770 777"},
     {"N", "0 1 10 100"}}};

std::string words_of(const Parameter& parameter) {
    if (parameter.words) return *parameter.words;
    for (const auto& [type, words] : kTypes) {
        if (parameter.type == type) return words;
    }
    return {};
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
        std::string words = words_of(parameter);
        for (std::string_view each : split(words, ' ')) {
            if (!each.starts_with('@')) {
                add(std::string(each));
            } else if (each == "@channel" || each == "@queue") {
                offer_channels(each == "@queue");
            } else if (each == "@subscription") {
                if (operands_.empty()) continue;
                for (auto& name : tree().locate(operands_[0]).subscriptions()) add(std::move(name));
            } else if (each == "@setting") {
                for (const std::string& key : setting_keys(tree())) add(key + "=");
            } else if (each == "@type") {
                for (std::string& type : setting_words(tree(), "type")) add(std::move(type));
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
            Channel channel = parent.child(name);
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

}  // namespace ipcfs::client
