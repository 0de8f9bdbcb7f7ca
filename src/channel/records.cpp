// Bytes of channels and messages for the store, and back. Any thread.
#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include <channel/records.hpp>

namespace ipcfs::channel {
namespace {

using nlohmann::json;

json to_json(const Attributes& a) {
    json xattrs = json::object();
    for (const auto& [name, value] : a.xattrs) {
        xattrs[name] = json::binary(std::vector<std::uint8_t>(value.begin(), value.end()));
    }
    return {{"uid", a.uid},
            {"gid", a.gid},
            {"mode", a.mode},
            {"changed", a.changed},
            {"xattrs", xattrs}};
}

Attributes attributes_from(const json& from) {
    Attributes a;
    a.uid = from.at("uid").get<uid_t>();
    a.gid = from.at("gid").get<gid_t>();
    a.mode = from.at("mode").get<mode_t>() & 07777;
    a.changed = from.at("changed").get<Nanos>();
    for (const auto& [name, value] : from.at("xattrs").items()) {
        const auto& bytes = value.get_binary();
        a.xattrs.emplace(name, std::string(bytes.begin(), bytes.end()));
    }
    return a;
}

constexpr std::uint8_t kExpiresFlag = 1;  // drop_when_late
constexpr std::uint64_t kNoExpiry = 0;

// Little-endian, as all that ipcfs runs on.
struct HeadBytes {
    std::uint8_t version = 1;
    std::uint8_t priority = 0;
    std::uint8_t type = 0;
    std::uint8_t flags = 0;
    std::uint32_t extensions = 0;
    std::uint64_t id = 0;
    std::uint64_t correlation = 0;
    std::int64_t time = 0;
    std::int64_t deadline = 0;
    std::uint64_t expires = kNoExpiry;  // real time
    std::uint32_t uid = 0, gid = 0;
    std::uint32_t pid = 0, tid = 0;
    std::uint64_t sequence = 0;  // as readers see it; the store's key may be another
    std::uint64_t reserved = 0;
};
static_assert(sizeof(HeadBytes) == kHeadSize);

Fault damaged(std::string what) {
    return Fault{EBADMSG, std::move(what)};
}

}  // namespace

std::vector<std::byte> encode(const ChannelRecord& record) {
    json changed = json::array();
    for (const auto& [kind, attributes] : record.changed) {
        changed.push_back(json::array({kind, to_json(attributes)}));
    }
    json all{
        {"parent", record.parent},
        {"name", json::binary(std::vector<std::uint8_t>(record.name.begin(), record.name.end()))},
        {"subscription", record.subscriber.has_value()},
        {"made", to_json(record.made)},
        {"changed", std::move(changed)},
        {"settings", print(record.settings)},
        {"filter",
         json::binary(std::vector<std::uint8_t>(record.filter.begin(), record.filter.end()))}};
    if (record.subscriber) {
        const access::Identity& who = *record.subscriber;
        all["subscriber"] = {{"uid", who.uid}, {"gid", who.gid}, {"groups", who.groups}};
    }
    std::vector<std::uint8_t> cbor = json::to_cbor(all);
    auto bytes = std::as_bytes(std::span(cbor));
    return {bytes.begin(), bytes.end()};
}

Result<ChannelRecord> decode_channel(std::span<const std::byte> bytes) {
    try {
        const auto* first = reinterpret_cast<const std::uint8_t*>(bytes.data());
        json all = json::from_cbor(first, first + bytes.size());
        auto text = [&](const char* key) {
            const auto& binary = all.at(key).get_binary();
            return std::string(binary.begin(), binary.end());
        };
        ChannelRecord record;
        record.parent = all.at("parent").get<std::uint64_t>();
        record.name = text("name");
        record.made = attributes_from(all.at("made"));
        if (all.at("subscription").get<bool>()) {
            record.subscriber.emplace(record.made.uid, record.made.gid);
            // Stores of before this was kept have none.
            if (const auto who = all.find("subscriber"); who != all.end()) {
                record.subscriber.emplace(who->at("uid").get<uid_t>(), who->at("gid").get<gid_t>(),
                                          who->at("groups").get<std::vector<gid_t>>());
            }
        }
        for (const json& each : all.at("changed")) {
            record.changed.emplace_back(each.at(0).get<std::uint8_t>(),
                                        attributes_from(each.at(1)));
        }
        record.filter = text("filter");
        auto settings = parse_control(all.at("settings").get<std::string>(), Settings{});
        if (!settings) return damaged("settings: " + settings.error().operation);
        if (!settings->commands.empty()) return damaged("settings: a command among them");
        record.settings = settings->settings;
        bool fine = !record.name.empty() && record.name.size() <= 255 && record.name != "." &&
                    record.name != ".." &&
                    record.name.find_first_of(std::string_view("/\0", 2)) == std::string::npos;
        if (!fine) return damaged("a name that no directory can have");
        return record;
    } catch (const json::exception& wrong) {
        return damaged(std::string("channel record: ") + wrong.what());
    }
}

Head encode_head(const queue::Message& message, Nanos epoch) noexcept {
    const queue::Envelope& e = message.envelope;
    HeadBytes bytes;
    bytes.priority = e.priority;
    bytes.type = e.type;
    bytes.flags = e.drop_when_late ? kExpiresFlag : 0;
    bytes.extensions = static_cast<std::uint32_t>(message.extensions().size());
    bytes.id = e.id;
    bytes.correlation = e.correlation;
    bytes.time = e.time;
    bytes.deadline = e.deadline;
    if (e.expires != kNever) {
        bytes.expires = static_cast<std::uint64_t>(std::max<Nanos>(1, e.expires + epoch));
    }
    bytes.uid = e.sender.uid;
    bytes.gid = e.sender.gid;
    bytes.pid = static_cast<std::uint32_t>(e.sender.pid);
    bytes.tid = static_cast<std::uint32_t>(e.sender.tid);
    bytes.sequence = e.sequence;
    Head head;
    std::memcpy(head.data(), &bytes, sizeof bytes);
    return head;
}

Result<DecodedHead> decode_head(std::span<const std::byte> head, std::size_t content, Nanos epoch) {
    HeadBytes bytes;
    if (head.size() != sizeof bytes) return damaged("message head: its size");
    std::memcpy(&bytes, head.data(), sizeof bytes);
    if (bytes.version != 1)
        return damaged("message head: version " + std::to_string(bytes.version));
    if (bytes.extensions > content || bytes.time < 0 || bytes.deadline < 0 ||
        bytes.expires > static_cast<std::uint64_t>(INT64_MAX)) {
        return damaged("message head: out of bounds");
    }
    DecodedHead decoded;
    decoded.extensions = bytes.extensions;
    queue::Envelope& e = decoded.envelope;
    e.priority = bytes.priority;
    e.type = bytes.type;
    e.id = bytes.id;
    e.correlation = bytes.correlation;
    e.time = bytes.time;
    e.deadline = bytes.deadline;
    e.drop_when_late = (bytes.flags & kExpiresFlag) != 0;
    e.sequence = bytes.sequence;
    e.enqueued = e.time - epoch;
    if (bytes.expires != kNoExpiry) e.expires = static_cast<Nanos>(bytes.expires) - epoch;
    e.sender.uid = bytes.uid;
    e.sender.gid = bytes.gid;
    e.sender.pid = static_cast<pid_t>(bytes.pid);
    e.sender.tid = static_cast<pid_t>(bytes.tid);
    return decoded;
}

}  // namespace ipcfs::channel
