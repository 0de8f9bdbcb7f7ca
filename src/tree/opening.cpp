// Opening the files of the table. Any thread.
#include <payload/payload.hpp>

#include <tree/lease_file.hpp>
#include <tree/memory_file.hpp>
#include <tree/message_file.hpp>
#include <tree/notify_file.hpp>
#include <tree/openers.hpp>
#include <tree/put_file.hpp>
#include <tree/stream_file.hpp>
#include <tree/text_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

namespace {

template <class File>
Opened as_open_file(Result<std::shared_ptr<File>> file) {
    if (!file) return file.error();
    return std::shared_ptr<OpenFile>(std::move(*file));
}

}  // namespace

Opened open_messages(const OpenRequest& r) {
    return as_open_file(
        MessageFile::open(r.channel, r.kind.messages, r.mode, r.subject, r.tree.payloads()));
}

Opened open_stream(const OpenRequest& r) {
    if (r.shape != kStreamShape) return open_messages(r);
    return as_open_file(StreamFile::open(r.channel, r.mode, r.subject));
}

Opened open_lease(const OpenRequest& r) {
    return as_open_file(LeaseFile::open(r.channel, r.kind.messages.framed, r.mode, r.subject));
}

Opened open_put(const OpenRequest& r) {
    const channel::Environment& env = r.tree.registry().environment();
    return as_open_file(PutFile::open(r.channel, r.node, r.kind.messages.framed, r.mode, r.subject,
                                      r.tree.payloads(), env.timers, env.clock));
}

Opened open_notify(const OpenRequest& r) {
    return as_open_file(NotifyFile::open(r.channel, r.mode, r.subject));
}

Opened open_payload(const OpenRequest& r) {
    auto payload = r.tree.payloads().find(r.node.channel);
    if (!payload) return Fault{ESTALE, "open: the payload is gone"};
    return PayloadFile::open(std::move(payload), r.tree.payloads(), r.tree.worker(), r.subject);
}

Opened open_region(const OpenRequest& r) {
    auto region = r.tree.shares().find(r.node.channel);
    if (!region) return Fault{ESTALE, "open: the region is gone"};
    auto charge = charge_open(r.tree.ledger().account(r.subject.uid));
    if (!charge) return charge.error();
    auto file = std::make_shared<RegionFile>(std::move(region), r.tree.shares(), r.channel,
                                             std::move(*charge));
    if (r.mode.truncates) {
        if (int error = file->resize(0)) return Fault{error, "open: empty the region"};
    }
    return std::shared_ptr<OpenFile>(std::move(file));
}

Opened open_text(const OpenRequest& r) {
    auto charge = charge_open(r.tree.ledger().account(r.subject.uid));
    if (!charge) return charge.error();
    return std::shared_ptr<OpenFile>(
        std::make_shared<TextFile>(r.tree, r.kind.text, r.channel, std::move(*charge)));
}

Opened Tree::open(NodeId node, OpenMode mode, const access::Subject& subject) {
    const FileKind* kind = file_kind(node.kind);
    if (!kind || !kind->open) return Fault{EISDIR, "open"};
    ChannelPtr channel;
    Shape now = kAllShapes;
    if (node.channel != channel::Registry::kRootId) {
        auto found = channel_of(node);
        if (!found) return found.error();
        channel = std::move(*found);
        now = shape_of(*channel);
    }
    if (!kind->is_shown(now)) return Fault{ESTALE, "open: the channel's type does not show it"};
    if ((mode.writes || mode.truncates) && kind->length == Length::kSealed) {
        return Fault{EROFS, "open: a sealed payload"};
    }
    if ((mode.reads && !(kind->reads & now)) || (mode.writes && !(kind->writes & now))) {
        return Fault{EACCES, std::string(kind->name) +
                                 ((kind->reads & now) != 0 ? " is only read" : " is only written")};
    }
    return kind->open({*this, *kind, node, now, channel, mode, subject});
}

}  // namespace ipcfs::tree
