// On the thread that starts the daemon.
#include <algorithm>
#include <cstring>
#include <sys/stat.h>

#include <channel/recovery.hpp>
#include <channel/subscription.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::channel {

using queue::MessageRef;

namespace {

// Where a large body is, written anew: it is a sealed one now, whatever it was.
void point_to(std::vector<std::byte>& extensions, const payload::Payload& payload) {
    const PayloadRef ref = payload.ref();
    FrameView view;
    view.extensions = extensions;
    auto found = view.extension(ExtensionType::kPayload);
    if (!found || found->size() != sizeof ref) return;
    std::memcpy(extensions.data() + (found->data() - extensions.data()), &ref, sizeof ref);
}

}  // namespace

Recovered::Recovered(Registry& registry, payload::Store& payloads, store::Store& store)
    : registry_(registry),
      payloads_(payloads),
      store_(store),
      env_(registry.environment()),
      epoch_(env_.clock.realtime() - env_.clock.monotonic()) {}

void Recovered::problem(std::string text) {
    ++lost_;
    if (problems_.size() < kMostProblems) problems_.push_back(std::move(text));
}

void Recovered::channel(std::uint64_t id, std::span<const std::byte> record,
                        std::uint64_t last_sequence) {
    current_.reset();
    current_id_ = id;
    auto decoded = decode_channel(record);
    auto made = decoded ? registry_.restore(id, *decoded)
                        : Result<std::shared_ptr<Channel>>(decoded.error());
    if (!made) {
        return problem("channel " + std::to_string(id) +
                       (decoded ? " (" + decoded->name + ")" : std::string()) +
                       " cannot be made again: " + made.error().operation);
    }
    current_ = std::move(*made);
    current_->restore_sequence(last_sequence);
    ++channels_;
}

Result<payload::PayloadPtr> Recovered::payload(std::uint64_t id, std::uint64_t channel, uid_t uid) {
    if (auto there = payloads_.find(id)) return there;
    auto file = store_.open_payload(id);
    if (!file) return file.error();
    struct stat info {};
    if (::fstat(file->get(), &info) != 0) return errno_fault("a kept payload");
    auto made =
        payloads_.restore(id, channel, file->get(), static_cast<std::uint64_t>(info.st_size), uid);
    if (made) {
        (*made)->is_saved = true;
        saved_.emplace(id, *made);  // until all messages are there
    }
    return made;
}

Result<MessageRef> Recovered::make(const store::Recovered& from, Channel& of) {
    auto head = decode_head(from.head, from.content.size(), epoch_);
    if (!head) return head.error();
    const bool is_share = from.origin.channel != 0;
    MessageRef message;
    if (is_share) {
        if (auto known = origins_.find(from.origin); known != origins_.end()) {
            message = env_.messages.share(known->second);
        }
    }
    if (!message) {
        std::vector<std::byte> extensions(from.content.begin(),
                                          from.content.begin() + head->extensions);
        if (!valid_extensions(extensions)) return Fault{EBADMSG, "its extensions are damaged"};
        payload::PayloadPtr body;
        if (from.payload) {
            auto made = payload(from.payload, is_share ? from.origin.channel : from.key.channel,
                                head->envelope.sender.uid);
            if (!made) return made.error();
            body = std::move(*made);
            point_to(extensions, *body);
        }
        message = env_.messages.make(extensions, from.content.subspan(head->extensions));
        if (!message) return Fault{ENOMEM, "memory for a message"};
        message->payload = std::move(body);
        if (is_share) {
            message->envelope = head->envelope;
            message->kept_channel = from.origin.channel;
            message->kept_sequence = from.origin.sequence;
            origins_.emplace(from.origin, message);
            message = env_.messages.share(message);
            if (!message) return Fault{ENOMEM, "memory for a message"};
        }
    }
    message->envelope = head->envelope;
    const Subscription* subscription = of.subscription();
    access::Account& account =
        subscription ? subscription->account() : env_.ledger.account(head->envelope.sender.uid);
    message->charged_message = access::Charge::force(account, access::Resource::kMessages, 1);
    message->charged_bytes =
        access::Charge::force(account, access::Resource::kBytes, message->size());
    return message;
}

void Recovered::message(const store::Recovered& from) {
    if (!current_ || current_id_ != from.key.channel) {
        return problem("message " + std::to_string(from.key.sequence) + " of channel " +
                       std::to_string(from.key.channel) + ": its channel is not there");
    }
    auto made = make(from, *current_);
    if (!made) {
        return problem("message " + std::to_string(from.key.sequence) + " of channel " +
                       std::to_string(from.key.channel) + ": " + made.error().message());
    }
    if ((*made)->envelope.sequence == 0) (*made)->envelope.sequence = from.key.sequence;
    ++messages_;
    if (current_->is_topic()) {
        // What a topic has itself is retained, or was not given to its subscriptions yet.
        (*made)->kept_channel = from.key.channel;
        (*made)->kept_sequence = from.key.sequence;
        origins_.emplace(from.key, *made);
        if (from.state.place == store::Place::kTaken) {
            unpublished_.push_back({current_, std::move(*made)});
        } else {
            current_->restore_retained(std::move(*made));
        }
        return;
    }
    current_->restore(std::move(*made), from, store_.may_have_lost_marks());
}

void Recovered::finish() {
    for (std::string& lost : registry_.place_restored()) problem(std::move(lost));
    for (Unpublished& each : unpublished_) each.topic->publish_again(std::move(each.message));
    unpublished_.clear();
    origins_.clear();
    saved_.clear();
    if (lost_ > problems_.size()) {
        problems_.push_back("and " + std::to_string(lost_ - problems_.size()) + " more");
    }
}

}  // namespace ipcfs::channel
