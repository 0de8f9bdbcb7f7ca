// `ipcfs mkdir`: creates channels, with parents and settings. One thread.
#include <cerrno>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

struct MakeOptions {
    std::vector<std::string> channels;
    bool parents = false;
    std::string mode;
    std::string type;
    std::vector<std::string> settings;  // key=value
};

std::string settings_text(const MakeOptions& options) {
    std::string text;
    if (!options.type.empty()) text += "type " + options.type + "\n";
    for (const std::string& setting : options.settings) {
        auto equals = setting.find('=');
        if (equals == std::string::npos || equals == 0) {
            fail(kUsage, "--set needs KEY=VALUE, not " + escape_controls(setting));
        }
        text += setting.substr(0, equals) + " " + setting.substr(equals + 1) + "\n";
    }
    return text;
}

void make_parents(const Tree& tree, const Channel& channel) {
    for (auto at = channel.name.find('/'); at != std::string::npos;
         at = channel.name.find('/', at + 1)) {
        std::string name = channel.name.substr(0, at);
        if (::mkdir(tree.file(name).c_str(), 0777) != 0 && errno != EEXIST) {
            fail_errno(escape_controls(name), errno);
        }
    }
}

void make_one(const Tree& tree, const MakeOptions& options, const Channel& channel,
              const std::string& settings) {
    if (channel.name.empty()) fail(kUsage, tree.root() + " is the root of the tree");
    if (options.parents) make_parents(tree, channel);
    int error = make_directory(channel.path, options.mode);
    bool existed = error == EEXIST && options.parents && is_channel(channel.path);
    if (error == EEXIST && !existed) {
        fail(kError, channel.shown() + (is_channel(channel.path)
                                            ? " exists already"
                                            : ": this name is reserved for a file of the channel"));
    }
    if (error == ENOENT) {
        fail(kError,
             channel.shown() + ": its parent does not exist; to create it, too: ipcfs mkdir -p");
    }
    if (error != 0 && !existed) fail_errno(channel.shown(), error);
    if (settings.empty()) return;
    error = write_once(channel.file("ctl"), settings);
    if (error == 0) return;
    std::string why = channel.reason(error);
    if (!existed) ::rmdir(channel.path.c_str());
    fail(kError,
         channel.shown("ctl") + ": " + why + (existed ? "" : "; the channel was not created"));
}

int make(const Globals& globals, const MakeOptions& options) {
    Tree tree(globals.mount);
    std::string settings = settings_text(options);
    for (const std::string& each : options.channels) {
        make_one(tree, options, tree.locate(each), settings);
    }
    return kOk;
}

Registration<MakeOptions> g_mkdir(
    Group::kChannels, "mkdir", "Create channels",
    "  ipcfs mkdir jobs\n"
    "  ipcfs mkdir -p build/linux/x86 -m 770\n"
    "  ipcfs mkdir ticks --set capacity=10 --set overflow=drop-oldest\n"
    "  ipcfs mkdir handover --type sync",
    [](Command& takes, MakeOptions& options) {
        takes.add("channel", &options.channels, "CHANNEL", "The channels").require();
        takes.flag("-p,--parents", options.parents,
                   "Create parents as needed; no error if the channel exists");
        takes.add("-m,--mode", &options.mode, "MODE", "Permissions, octal, as for mkdir(1)");
        takes
            .add("-t,--type", &options.type, "TYPE",
                 "The channel's type: queue (default), sync, batch, topic, multicast or stream")
            .offer("@type");
        takes.add("-s,--set", &options.settings, "KEY=VALUE", "Set KEY, see below; may be repeated")
            .offer("@setting");
        takes.lists_settings = true;
    },
    make);

}  // namespace
}  // namespace ipcfs::client
