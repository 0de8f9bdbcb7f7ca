// `ipcfs sub`: follows a topic, or creates, lists, removes and reads named subscriptions, which are
// directories below TOPIC/subs. One thread.
#include <cerrno>
#include <string>
#include <unistd.h>
#include <vector>

#include <command.hpp>
#include <failure.hpp>
#include <io.hpp>
#include <json.hpp>
#include <receive.hpp>
#include <text.hpp>
#include <tree.hpp>

namespace ipcfs::client {
namespace {

struct SubscribeOptions {
    std::string channel;
    std::string name;  // empty: anonymous
    std::vector<std::string> filter;
    bool recursive = false;
    bool create = false;
    bool remove = false;
    bool list = false;
    std::string mode;
    ReceiveOptions receive;
};

void require_topic(const Channel& channel) {
    std::string type = channel.find("ctl", "type");
    if (type.empty() || type == "topic" || type == "multicast") return;
    fail(kError, channel.shown() + " is no topic, its type is " + type +
                     "; to change it while it is empty and unused: ipcfs ctl " + channel.shown() +
                     " type topic");
}

// The options in the syntax of the file `filter`.
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
    if (error == EINVAL)
        fail(kError, subscription.shown("filter") + ": " + subscription.reason(error));
    fail_errno(subscription.shown("filter"), error);
}

bool make_subscription(const Channel& subscription, const SubscribeOptions& options) {
    int error = make_directory(subscription.path, options.mode);
    if (error != 0 && error != EEXIST) fail_errno(subscription.shown(), error);
    return error == 0;
}

int remove_subscription(const Globals& globals, const Channel& subscription) {
    if (::rmdir(subscription.path.c_str()) != 0) {
        if (errno == ENOENT) fail(kError, "there is no subscription " + subscription.shown());
        if (errno == ENOTEMPTY) {
            std::string depth = subscription.find("status", "depth");
            fail(kError, subscription.shown() + " still holds messages" +
                             (depth.empty() ? "" : " (" + depth + ")") +
                             "; to take them: ipcfs recv " + subscription.shown() +
                             " -n 0; to discard them: ipcfs ctl " + subscription.shown() +
                             " purge");
        }
        fail_errno(subscription.shown(), errno);
    }
    if (globals.json) print_json({{"removed", subscription.name}});
    return kOk;
}

int list_subscriptions(const Globals& globals, const Channel& topic) {
    Table table;
    table.columns = {"subscription", "depth", "bytes", "readers", "leased", "dead", "filter"};
    for (const std::string& name : topic.subscriptions()) {
        Channel each = topic.subscription(name);
        Pairs state = each.read("status");
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
        print_json(to_json(table));
    } else if (!table.rows.empty()) {
        print(render(table, output_is_terminal()));
    }
    return kOk;
}

void check(const SubscribeOptions& options) {
    bool lasting = !options.name.empty();
    if (!lasting &&
        (options.create || options.remove || !options.filter.empty() || options.recursive)) {
        fail(kUsage,
             "--create, --remove, --filter and --recursive are for a named subscription: "
             "add --name NAME");
    }
    if (options.remove && (options.create || !options.filter.empty() || options.recursive)) {
        fail(kUsage, "--remove allows no other option except --name");
    }
    if (lasting && options.list)
        fail(kUsage, "--list shows all subscriptions, so it allows no --name");
    if (options.name.find('/') != std::string::npos || options.name == "." ||
        options.name == "..") {
        fail(kUsage, escape_controls(options.name) + " is not a valid name of a subscription");
    }
}

int subscribe(const Globals& globals, const SubscribeOptions& options) {
    check(options);
    Tree tree(globals.mount);
    Channel topic = tree.channel(options.channel);
    require_topic(topic);
    if (options.list) return list_subscriptions(globals, topic);
    if (options.name.empty()) return receive_from(globals, topic, options.receive);
    Channel subscription = topic.subscription(options.name);
    if (options.remove) return remove_subscription(globals, subscription);
    bool made = options.create && make_subscription(subscription, options);
    if (!made && !is_channel(subscription.path)) {
        if (errno != ENOENT) fail_errno(subscription.shown(), errno);
        fail(kError, topic.shown() + " has no subscription " + escape_controls(options.name) +
                         "; to create it: ipcfs sub " + topic.shown() + " --name " +
                         escape_controls(options.name) + " --create");
    }
    if (!options.filter.empty() || options.recursive) {
        try {
            apply_filter(subscription, options);
        } catch (const Failure&) {
            if (made) ::rmdir(subscription.path.c_str());
            throw;
        }
    }
    return receive_from(globals, subscription, options.receive);
}

Registration<SubscribeOptions> g_sub(
    Group::kTopics, "sub", "Subscribe to a topic and print what is published",
    "  ipcfs sub logs                        # from now on, until Ctrl-C\n"
    "  ipcfs sub logs --name alice --create  # persistent: nothing is missed between "
    "calls\n"
    "  ipcfs sub logs --name alice -n 0      # what arrived meanwhile\n"
    "  ipcfs sub logs --name pager --create --filter 'priority high-critical' -n 0\n"
    "  ipcfs sub logs --name all --create --recursive   # logs/web, logs/db ... too\n"
    "  ipcfs sub logs --list\n"
    "  ipcfs sub logs --name alice --remove\n"
    "  ipcfs work logs/subs/pager -- ./page-me          # a subscription is a queue",
    [](Command& takes, SubscribeOptions& options) {
        takes.channel(options.channel, "The topic");
        takes.add("--name", &options.name, "NAME", "Use the named subscription TOPIC/subs/NAME")
            .offer("@subscription");
        takes.flag("-c,--create", options.create, "Create the subscription if it does not exist");
        takes
            .add(
                "-f,--filter", &options.filter, "CONDITION",
                "Deliver only messages that meet all CONDITIONs, one an option: priority\n"
                "high-critical, type event, method GLOB, sender user NAME, prefix TEXT, regex RE,\n"
                "channel GLOB, group NAME; '' is everything. Replaces the present filter")
            .offer("priority type method sender prefix regex channel recursive group");
        takes.flag("-R,--recursive", options.recursive,
                   "Also deliver what is published to topics below this one");
        takes.add("-m,--mode", &options.mode, "MODE", "With --create: permissions, octal");
        takes.flag("--remove", options.remove, "Remove the subscription; it must be empty");
        takes.flag("--list", options.list, "List the named subscriptions");
        takes.add("-n,--count", &options.receive.count, "N",
                  "End after N messages; 0: all that are queued now");
        takes.add("-t,--timeout", &options.receive.timeout, "DURATION",
                  "Wait at most DURATION for each message, then exit 3");
        takes.printing(options.receive.print);
    },
    subscribe);

}  // namespace
}  // namespace ipcfs::client
