// What the files that show a text say, but for statistics of channels (statistics.cpp).
#include <insight/table.hpp>
#include <ipcfs/frame.hpp>
#include <tree/texts.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

using insight::Table;

namespace {

std::string peek_text(const channel::Endpoint& channel, queue::Lane lane) {
    Table t({"sequence", "id", "time", "priority", "type", "size", "pid", "tid", "uid", "gid",
             "correlation", "deadline", "redelivered", "deliveries"});
    for (const channel::Listed& m : channel.list(lane)) {
        const queue::Envelope& e = m.envelope;
        t.row().cell(e.sequence).cell(e.id).cell(e.time).cell(unsigned{e.priority});
        t.cell(to_string(static_cast<FrameType>(e.type))).cell(m.size);
        t.cell(e.sender.pid).cell(e.sender.tid).cell(e.sender.uid).cell(e.sender.gid);
        t.cell(e.correlation).cell(e.deadline).cell(e.redelivered ? 1 : 0);
        t.cell(e.deliveries);
    }
    return std::move(t).text();
}

}  // namespace

std::string main_peek_text(Tree&, const ChannelPtr& channel) {
    return peek_text(*channel, queue::Lane::kMain);
}

std::string dead_peek_text(Tree&, const ChannelPtr& channel) {
    return peek_text(*channel, queue::Lane::kDead);
}

std::string filter_text(Tree&, const ChannelPtr& channel) {
    return channel->filter();
}

std::string ctl_text(Tree&, const ChannelPtr& channel) {
    return channel::print(channel->settings());
}

std::string config_text(Tree& tree, const ChannelPtr&) {
    return tree.system().config ? tree.system().config() : std::string();
}

std::string version_text(Tree& tree, const ChannelPtr&) {
    return tree.system().version ? tree.system().version() : std::string();
}

std::string settings_text(Tree&, const ChannelPtr&) {
    Table t({"key", "values", "help"});
    for (const channel::SettingRow& row : channel::setting_rows()) {
        t.row().cell(row.key).cell(row.values).cell(row.help);
    }
    return std::move(t).text();
}

std::string mappings_text(Tree& tree, const ChannelPtr&) {
    auto usage = tree.shares().usage();
    const auto payloads = tree.payloads().usage();
    usage.insert(usage.end(), payloads.begin(), payloads.end());
    Table t({"object", "state", "uid", "count", "bytes"});
    for (const payload::Usage& line : usage) {
        t.row().cell(line.object).cell(line.state).cell(line.uid).cell(line.count).cell(line.bytes);
    }
    return std::move(t).text();
}

std::string resources_text(Tree& tree, const ChannelPtr&) {
    const access::Ledger& ledger = tree.ledger();
    const auto shown = [](std::uint64_t limit) { return limit == access::kUnlimited ? 0 : limit; };
    Table t({"scope", "id", "resource", "used", "limit"});
    ledger.for_each([&](const access::Account& account) {
        for (std::size_t i = 0; i < access::kResources; ++i) {
            const auto resource = static_cast<access::Resource>(i);
            t.row().cell("user").cell(account.uid()).cell(access::kResourceRows[i].name);
            t.cell(account.used(resource)).cell(shown(account.limit(resource)));
        }
    });
    t.row().cell("total").cell(0).cell("bytes").cell(ledger.total_bytes());
    t.cell(shown(ledger.total_limit()));
    if (tree.system().resources) tree.system().resources(t);
    return std::move(t).text();
}

}  // namespace ipcfs::tree
