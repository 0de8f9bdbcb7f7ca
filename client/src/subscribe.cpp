// `ipcfs sub`: follows a topic, or makes, lists, removes and reads the subscriptions that last, which are
// directories below TOPIC/subs. One thread.
#include <algorithm>
#include <cerrno>
#include <dirent.h>
#include <memory>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include <commands.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <receive.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

void require_topic(const Channel& channel) {
    std::string type = channel.setting("type");
    if (type.empty() || type == "topic" || type == "multicast") return;
    fail(kError, channel.shown() + " is no topic, its type is " + type +
                     "; while it is empty and unused that can be changed: ipcfs ctl " +
                     channel.shown() + " type topic");
}

// What the options say, as the file `filter` takes it.
std::string filter_text(const SubscribeOptions& options) {
    std::string text;
    for (const std::string& line : options.filter) {
        text += line;
        if (!line.empty() && line.back() != '\n') text += '\n';
    }
    if (options.recursive) text += "recursive on\n";
    return text.empty() ? "\n" : text;
}

void apply_filter(const Channel& subscription, const SubscribeOptions& options) {
    int error = write_once(subscription.file("filter"), filter_text(options));
    if (error == 0) return;
    std::string reason(find(read_status(subscription), "last-error"));
    if (error == EINVAL && !reason.empty()) {
        fail(kError, subscription.shown("filter") + ": " + escape_controls(reason));
    }
    fail_errno(subscription.shown("filter"), error);
}

bool make(const Channel& subscription, const SubscribeOptions& options) {
    mode_t mode = 0777;
    mode_t mask = 0;
    if (!options.mode.empty()) {
        mode = parse_mode(options.mode);
        mask = ::umask(0);
    }
    int error = ::mkdir(subscription.path.c_str(), mode) == 0 ? 0 : errno;
    if (!options.mode.empty()) ::umask(mask);
    if (error != 0 && error != EEXIST) fail_errno(subscription.shown(), error);
    return error == 0;
}

int remove(const Globals& globals, const Channel& subscription) {
    if (::rmdir(subscription.path.c_str()) != 0) {
        if (errno == ENOENT) fail(kError, "there is no subscription " + subscription.shown());
        if (errno == ENOTEMPTY) {
            std::string depth(find(read_status(subscription), "depth"));
            fail(kError, subscription.shown() + " still holds messages" +
                             (depth.empty() ? "" : " (" + depth + ")") +
                             "; take them with: ipcfs recv " + subscription.shown() +
                             " -n 0, or throw them away with: ipcfs ctl " + subscription.shown() +
                             " purge");
        }
        fail_errno(subscription.shown(), errno);
    }
    if (globals.json) print(Json().object({{"removed", subscription.name}}).take());
    return kOk;
}

int list(const Globals& globals, const Channel& topic) {
    Table table;
    table.columns = {"subscription", "depth", "bytes", "readers", "leased", "dead", "filter"};
    for (const std::string& name : topic.subscriptions()) {
        Channel each = topic.subscription(name);
        Pairs state = read_status(each);
        std::vector<std::string> row{name};
        for (std::size_t c = 1; c + 1 < table.columns.size(); ++c) {
            auto value = find(state, table.columns[c]);
            row.emplace_back(value.empty() ? "0" : value);
        }
        std::string filter = read_file(each.file("filter")).value_or("");
        while (!filter.empty() && filter.back() == '\n') filter.pop_back();
        if (!globals.json) {
            for (std::size_t at = 0; (at = filter.find('\n', at)) != std::string::npos; at += 2) {
                filter.replace(at, 1, "; ");
            }
            if (filter.empty()) filter = "-";
        }
        row.push_back(std::move(filter));
        table.rows.push_back(std::move(row));
    }
    if (globals.json) {
        print(Json().array(table).take());
    } else if (!table.rows.empty()) {
        print(render(table, output_is_terminal()));
    }
    return kOk;
}

void check(const SubscribeOptions& options) {
    bool lasting = !options.name.empty();
    if (!lasting && (options.create || options.remove || options.set_filter || options.recursive)) {
        fail(kUsage,
             "--create, --remove, --filter and --recursive are for a subscription that lasts: "
             "give it a --name");
    }
    if (options.remove && (options.create || options.set_filter || options.recursive)) {
        fail(kUsage, "--remove goes with no other option but --name");
    }
    if (lasting && options.list) fail(kUsage, "--list shows all of them, it takes no --name");
    if (options.name.find('/') != std::string::npos || options.name == "." ||
        options.name == "..") {
        fail(kUsage, escape_controls(options.name) + " cannot be the name of a subscription");
    }
}

}  // namespace

int subscribe(const Globals& globals, const ReceiveOptions& receive,
              const SubscribeOptions& options) {
    check(options);
    Tree tree(globals.mount);
    Channel topic = tree.channel(receive.channel);
    require_topic(topic);
    if (options.list) return list(globals, topic);
    if (options.name.empty()) return receive_from(globals, topic, receive);
    Channel subscription = topic.subscription(options.name);
    if (options.remove) return remove(globals, subscription);
    bool made = options.create && make(subscription, options);
    if (!made && !is_channel(subscription.path)) {
        if (errno != ENOENT) fail_errno(subscription.shown(), errno);
        fail(kError, topic.shown() + " has no subscription " + escape_controls(options.name) +
                         "; make it with: ipcfs sub " + topic.shown() + " --name " +
                         escape_controls(options.name) + " --create");
    }
    if (options.set_filter || options.recursive) {
        try {
            apply_filter(subscription, options);
        } catch (const Failure&) {
            if (made) ::rmdir(subscription.path.c_str());
            throw;
        }
    }
    return receive_from(globals, subscription, receive);
}

}  // namespace ipcfs::client
