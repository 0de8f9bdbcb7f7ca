// The seam between the commands and everything that has to know them. A command is a class that
// declares what it takes and does its work in run(); its file registers it, and nothing else names
// it. The command line and the help (command_line.cpp) and the shell's completion (completion.cpp)
// are made from these declarations. One thread.
#pragma once

#include <cstdint>
#include <memory>
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

// An option or, named without dashes, an operand.
struct Parameter {
    // Where the value goes. A bool is a flag, an optional int64 a duration in ns.
    using Target =
        std::variant<bool*, std::string*, std::vector<std::string>*, std::vector<int>*, unsigned*,
                     std::uint64_t*, std::optional<std::uint64_t>*, std::optional<std::int64_t>*>;

    std::string names;  // "-l,--long"; "--nack{0}": a flag that may have a value, else 0
    Target target;
    std::string type;  // of the value, as the help shows it: "CHANNEL"
    std::string help;
    bool required = false;
    std::pair<int, int> range{};             // of numbers; 0, 0: any
    std::vector<std::string> excluded = {};  // options declared before, not to be given with it
    std::optional<std::string> words = {};   // what completion offers, where not by the type

    Parameter& require() { return required = true, *this; }
    Parameter& within(int least, int most) { return range = {least, most}, *this; }
    Parameter& excludes(const char* other) { return excluded.emplace_back(other), *this; }
    // Words, and @KIND for what completion.cpp finds in the tree or the file system.
    Parameter& offer(const char* offered) { return words = offered, *this; }

    bool is_operand() const { return !names.starts_with('-'); }
    bool is_flag() const {
        return std::holds_alternative<bool*>(target) || names.find('{') != std::string::npos;
    }
};

// For commands that take nothing, or one channel.
struct NoOptions {};
struct ChannelOption {
    std::string channel;
};

// The headings of the help, in its order.
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

    // All there are, ready to be read, by group and name.
    static std::vector<Command*> all();

    // Words that completion offers after these operands, beside what the parameters offer.
    virtual std::vector<std::string> next_words(const Tree&,
                                                const std::vector<std::string>&) const {
        return {};
    }
    // Does it, when the targets have their values. The exit code, or ends in a Failure.
    virtual int run(const Globals& globals) = 0;

    const Group group;
    const char* const name;
    const char* const help;
    const char* const examples;
    const std::vector<Parameter>& parameters() const { return parameters_; }

    // The reference is good until the next call.
    Parameter& add(const char* names, Parameter::Target target, const char* type,
                   const char* text) {
        return parameters_.emplace_back(Parameter{names, target, type, text});
    }
    Parameter& flag(const char* names, bool& target, const char* text) {
        return add(names, &target, "", text);
    }
    // The operand CHANNEL. One that is a queue may be a subscription, too.
    Parameter& channel(std::string& target, const char* text = "The channel") {
        return add("channel", &target, "CHANNEL", text).require();
    }
    Parameter& queue(std::string& target, const char* text = "The channel, or TOPIC/subs/NAME") {
        return channel(target, text).offer("@queue");
    }
    // How messages are printed; in printer.cpp.
    void printing(PrintOptions& print);

private:
    virtual void declare() = 0;

    inline static constinit Command* first_ = nullptr;
    Command* const next_;
    std::vector<Parameter> parameters_;
};

// A command that the program has, an object in its file: the options that it takes, the function that
// declares them and the one that does it.
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
