// The interface of a command. A command declares its parameters and does its work in run(); its
// file registers it, and nothing else names it. The command line and the help (command_line.cpp)
// and shell completion (completion.cpp) are generated from these declarations. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace ipcfs::client {

class Tree;
struct PrintOptions;

struct Globals {
    std::string mount;  // empty: choose_root decides
    bool json = false;
    bool quiet = false;
};

// An option, or an operand if its name has no dashes.
struct Parameter {
    // Receives the value. A bool is a flag, an optional int64 a duration in ns.
    using Target =
        std::variant<bool*, std::string*, std::vector<std::string>*, std::vector<int>*, unsigned*,
                     std::uint64_t*, std::optional<std::uint64_t>*, std::optional<std::int64_t>*>;

    std::string names;  // "-l,--long"; "--nack{0}": an optional value, default 0
    Target target;
    std::string type;  // the value's name in the help: "CHANNEL"
    std::string help;
    bool required = false;
    std::pair<int, int> range{};             // for numbers; 0, 0: any
    std::vector<std::string> excluded = {};  // earlier options that exclude it
    std::optional<std::string> words = {};   // completions; by type if empty

    Parameter& require() { return required = true, *this; }
    Parameter& within(int least, int most) { return range = {least, most}, *this; }
    Parameter& excludes(const char* other) { return excluded.emplace_back(other), *this; }
    // Completions: words, or @KIND for what completion.cpp looks up in the tree or the file system.
    Parameter& offer(const char* offered) { return words = offered, *this; }

    bool is_operand() const { return !names.starts_with('-'); }
    bool is_flag() const {
        return std::holds_alternative<bool*>(target) || names.find('{') != std::string::npos;
    }
};

// Options of commands without parameters, or with just one channel.
struct NoOptions {};
struct ChannelOption {
    std::string channel;
};

// The sections of the help, in its order.
enum class Group { kDaemon, kChannels, kMessages, kTopics, kLeases };

class Command {
public:
    Command(Group in, const char* named, const char* helped, const char* shown) noexcept
        : group(in),
          name(named),
          help(helped),
          examples(shown),
          next_(std::exchange(first_, this)) {}
    virtual ~Command() = default;
    Command(const Command&) = delete;
    Command& operator=(const Command&) = delete;

    // All commands with their declared parameters, by group and name.
    static std::vector<Command*> all();

    // Completions after these operands, in addition to those of the parameters.
    virtual std::vector<std::string> next_words(const Tree&,
                                                const std::vector<std::string>&) const {
        return {};
    }
    // Runs the command; the targets hold their values. Returns the exit code or throws a Failure.
    virtual int run(const Globals& globals) = 0;

    const Group group;
    const char* const name;
    const char* const help;
    const char* const examples;
    bool lists_settings = false;  // in its help
    const std::vector<Parameter>& parameters() const { return parameters_; }

    // The returned reference is valid until the next call.
    Parameter& add(const char* names, Parameter::Target target, const char* type,
                   const char* text) {
        return parameters_.emplace_back(Parameter{names, target, type, text});
    }
    Parameter& flag(const char* names, bool& target, const char* text) {
        return add(names, &target, "", text);
    }
    // Adds the operand CHANNEL; queue() also accepts a subscription.
    Parameter& channel(std::string& target, const char* text = "The channel") {
        return add("channel", &target, "CHANNEL", text).require();
    }
    Parameter& queue(std::string& target, const char* text = "The channel, or TOPIC/subs/NAME") {
        return channel(target, text).offer("@queue");
    }
    // Adds the options for printing messages; see printer.cpp.
    void printing(PrintOptions& print);

private:
    virtual void declare() = 0;

    inline static constinit Command* first_ = nullptr;
    Command* const next_;
    std::vector<Parameter> parameters_;
};

// Registers a command: its options, the function that declares them and the one that runs it.
template <class Options>
class Registration final : public Command {
public:
    using Declare = void (*)(Command&, Options&);
    using Run = int (*)(const Globals&, const Options&);

    using Words = std::vector<std::string> (*)(const Tree&, const std::vector<std::string>&);

    Registration(Group in, const char* named, const char* helped, const char* shown,
                 Declare declares, Run runs, Words offers = nullptr) noexcept
        : Command(in, named, helped, shown), declare_(declares), run_(runs), words_(offers) {}

    std::vector<std::string> next_words(const Tree& tree,
                                        const std::vector<std::string>& operands) const override {
        return words_ != nullptr ? words_(tree, operands) : std::vector<std::string>{};
    }

    int run(const Globals& globals) override { return run_(globals, options_); }

private:
    void declare() override { declare_(*this, options_); }

    const Declare declare_;
    const Run run_;
    const Words words_;
    Options options_;
};

}  // namespace ipcfs::client
