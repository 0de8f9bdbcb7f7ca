// `ipcfs rm`: removes channels, on request with their content. One thread.
#include <cerrno>
#include <cstdint>
#include <string>
#include <unistd.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

struct RemoveOptions {
    std::vector<std::string> channels;
    bool recursive = false;
    bool force = false;
};

class Remover {
public:
    Remover(const Tree& tree, const RemoveOptions& options) : tree_(tree), options_(options) {}

    void remove(const Channel& channel) {
        if (options_.recursive) {
            for (const std::string& name : tree_.children(channel)) {
                remove(channel.child(name));
            }
            for (const std::string& name : channel.subscriptions()) {
                remove(channel.subscription(name));
            }
        }
        int error = remove_one(channel);
        if (error == ENOTEMPTY) explain(channel);
        if (error != 0 && !(error == ENOENT && options_.recursive))
            fail_errno(channel.shown(), error);
        ++removed_;
        if (removed_ % 100 == 0) show_progress(std::to_string(removed_) + " channels removed...");
    }

    std::uint64_t removed() const { return removed_; }

private:
    int remove_one(const Channel& channel) {
        // A sender may add a message between purge and rmdir: retry, but not for ever.
        for (int attempt = 0;; ++attempt) {
            if (options_.force) {
                int error = write_once(channel.file("ctl"), "purge\n");
                if (error != 0) return error;
                for (const std::string& name : names_in(channel.file("share"))) {
                    ::unlink(channel.file("share/" + name).c_str());
                }
            }
            if (::rmdir(channel.path.c_str()) == 0) return 0;
            if (errno != ENOTEMPTY || !options_.force || attempt == 100) return errno;
            if (!tree_.children(channel).empty() || !channel.subscriptions().empty()) {
                return ENOTEMPTY;
            }
        }
    }

    [[noreturn]] void explain(const Channel& channel) const {
        if (!tree_.children(channel).empty()) {
            fail(kError, channel.shown() + " has sub-channels; to remove them, too: ipcfs rm -r");
        }
        if (!channel.subscriptions().empty()) {
            fail(kError, channel.shown() +
                             " has subscriptions; to remove them, too: ipcfs rm -r; with their "
                             "messages: ipcfs rm -rf");
        }
        if (auto regions = names_in(channel.file("share")); !regions.empty()) {
            fail(kError, channel.shown() + " has " + std::to_string(regions.size()) +
                             (regions.size() == 1 ? " region" : " regions") +
                             " in share/; to remove everything: ipcfs rm --force");
        }
        if (options_.force)
            fail(kError,
                 channel.shown() +
                     ": messages arrive faster than they can be purged; stop the senders first");
        fail(kError, channel.shown() + " holds " + held(channel) +
                         "; to remove everything: ipcfs rm --force");
    }

    // "3 messages, 1 leased, 2 dead"
    static std::string held(const Channel& channel) {
        Pairs state = channel.read("status");
        std::string depth(find(state, "depth"));
        std::string text =
            (depth.empty() ? "" : depth + " ") + (depth == "1" ? "message" : "messages");
        for (const char* key : {"leased", "delayed", "dead"}) {
            auto count = find(state, key);
            if (!count.empty() && count != "0") text += ", " + std::string(count) + " " + key;
        }
        return text;
    }

    const Tree& tree_;
    const RemoveOptions& options_;
    std::uint64_t removed_ = 0;
};

int remove(const Globals& globals, const RemoveOptions& options) {
    Tree tree(globals.mount);
    Remover remover(tree, options);
    for (const std::string& each : options.channels) {
        Channel channel = tree.locate(each);
        if (options.force && ::access(channel.path.c_str(), F_OK) != 0 && errno == ENOENT) continue;
        remover.remove(tree.channel(each));
    }
    clear_progress();
    if (globals.json) {
        print_json({{"removed", remover.removed()}});
    }
    return kOk;
}

Registration<RemoveOptions> g_rm(
    Group::kChannels, "rm", "Remove empty channels", "  ipcfs rm jobs\n  ipcfs rm -rf build",
    [](Command& takes, RemoveOptions& options) {
        takes.add("channel", &options.channels, "CHANNEL", "The channels").require();
        takes.flag("-r,--recursive", options.recursive, "Remove sub-channels first, deepest first");
        takes.flag("-f,--force", options.force,
                   "Discard remaining messages and shared regions; no error if\n"
                   "there is no such channel");
    },
    remove);

}  // namespace
}  // namespace ipcfs::client
