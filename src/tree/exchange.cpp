// Hand-over of memory. Any thread.
#include <fcntl.h>
#include <unistd.h>

#include <payload/memory.hpp>

#include <access/acl.hpp>
#include <ipcfs/frame.hpp>
#include <tree/channel_file.hpp>
#include <tree/exchange.hpp>
#include <tree/notify_file.hpp>

namespace ipcfs::tree {

using channel::Channel;
using channel::Push;

namespace {

using access::kRead, access::kSearch, access::kWrite;
constexpr std::uint64_t kPage = 4096;

std::uint64_t in_pages(std::uint64_t size) {
    return (size + kPage - 1) / kPage * kPage;
}

// What may not be said by a client of a message with a payload.
Result<void> check_envelope(const ControlSend& what, std::span<const std::byte> extensions) {
    auto type = static_cast<FrameType>(what.type);
    bool known = type >= FrameType::kControl && type <= FrameType::kError &&
                 type != FrameType::kCapability && type != FrameType::kHandoff;
    if (!known || (what.flags & ~unsigned{kFrameExpires}) || what.deadline > INT64_MAX) {
        return Fault{EINVAL, "type, flags or deadline of the message"};
    }
    FrameView view{{}, extensions, {}};
    if (!valid_extensions(extensions) || view.extension(ExtensionType::kPayload)) {
        return Fault{EINVAL, "extensions are malformed, or one is the daemon's"};
    }
    return {};
}

class Listening final : public Watch {
public:
    Listening(std::shared_ptr<Channel> channel, std::shared_ptr<channel::EventListener> listener)
        : channel_(std::move(channel)), listener_(std::move(listener)) {
        channel_->events().add(listener_);
    }
    ~Listening() override { channel_->events().remove(listener_.get()); }

private:
    std::shared_ptr<Channel> channel_;
    std::shared_ptr<channel::EventListener> listener_;
};

// Adds one to an eventfd for each event, without waiting for whoever shares it.
class EventCounter final : public channel::EventListener {
public:
    EventCounter(Fd counter, std::shared_ptr<EventAdder> adder, channel::EventFilter filter,
                 access::Charge charge)
        : counter_(std::move(counter)),
          adder_(std::move(adder)),
          filter_(filter),
          charge_(std::move(charge)) {}
    bool on_event(const channel::Event& event) noexcept override {
        if (!filter_.matches(event)) return true;
        if (filter_.rate > 0) {
            auto second = static_cast<std::uint64_t>(event.time / kSecond);
            if (window_.exchange(second, std::memory_order_relaxed) != second) in_window_ = 0;
            if (in_window_.fetch_add(1, std::memory_order_relaxed) >= filter_.rate) return true;
        }
        adder_->add(counter_.get());
        return true;
    }

private:
    Fd counter_;
    std::shared_ptr<EventAdder> adder_;
    channel::EventFilter filter_;
    access::Charge charge_;
    std::atomic<std::uint64_t> window_{0}, in_window_{0};
};

// What a sender is told when its message was not queued.
Fault refusal(int error) {
    switch (error) {
        case ENOBUFS: return Fault{error, "the channel is full"};
        case EMSGSIZE: return Fault{error, "the message does not fit the channel"};
        case EPIPE: return Fault{error, "the channel is gone"};
        case ENOSPC: return Fault{error, "the disk that durable channels are kept on is full"};
        case EIO: return Fault{error, "the message could not be made durable"};
        case EAGAIN:
            return Fault{error, "the channel is paused or full: poll its `queue` for POLLOUT"};
        default: return Fault{error, "enqueue"};
    }
}

}  // namespace

Exchange::Exchange(Tree& tree, payload::Store& store, Executor& worker)
    : tree_(tree), store_(store), worker_(worker) {}

Result<std::shared_ptr<Channel>> Exchange::channel_for(const Caller& caller, std::string_view path,
                                                       Kind file, unsigned want) const {
    return tree_.reach(path, file, want, caller.subject.uid, caller.subject.gid, caller.groups);
}

// By id, which somebody may have learnt who cannot get there by name.
bool Exchange::may(const Caller& caller, std::uint64_t channel, Kind file, unsigned want) const {
    return channel_for(caller, tree_.registry().path(channel), file, want).has_value();
}

Result<queue::Batch> Exchange::batch_of(Channel& channel, const Caller& caller,
                                        const ControlSend& what,
                                        std::span<const std::byte> extensions,
                                        payload::PayloadPtr payload) {
    std::vector<std::byte> all(extensions.begin(), extensions.end());
    PayloadRef ref = payload->ref();
    if (!append_extension(all, ExtensionType::kPayload, std::as_bytes(std::span(&ref, 1)))) {
        return Fault{EINVAL, "the extensions leave no room for the payload's"};
    }
    queue::MessageRef message = channel.environment().messages.make(all, {});
    if (!message) return Fault{ENOMEM, "memory for the message"};
    access::Account& account = store_.ledger().account(caller.subject.uid);
    if (!message->charge(account)) {
        return Fault{EDQUOT, "the user's limit of messages or bytes is reached"};
    }
    message->payload = std::move(payload);
    queue::Envelope& e = message->envelope;
    e.sender = caller.subject;
    e.priority = what.priority;
    e.type = static_cast<std::uint8_t>(message->payload->kind == PayloadKind::kHandoff
                                           ? FrameType::kHandoff
                                           : static_cast<FrameType>(what.type));
    e.id = what.message_id;
    e.correlation = what.correlation_id;
    e.deadline = static_cast<Nanos>(what.deadline);
    e.drop_when_late = (what.flags & kFrameExpires) != 0;
    queue::Batch batch;
    batch.add(std::move(message));
    return batch;
}

Result<Sent> Exchange::enqueue(const std::shared_ptr<Channel>& channel, const Caller& caller,
                               const ControlSend& what, std::span<const std::byte> extensions,
                               payload::PayloadPtr payload) {
    if (channel->settings().durable != channel::Durable::kOff) {
        return Fault{EOPNOTSUPP,
                     "a durable channel keeps bytes, not a region or what its producer "
                     "fills on demand: send it sealed"};
    }
    Sent sent{payload->id, payload->size};
    auto batch = batch_of(*channel, caller, what, extensions, std::move(payload));
    if (!batch) return batch.error();
    const Push push = channel->try_push(*batch, queue::Via::kOther, false, nullptr);
    if (push != Push::kQueued) return refusal(error_of(push));
    return sent;
}

Result<Exchange::Ready> Exchange::prepare(const Caller& caller, std::string_view path,
                                          const ControlSend& what,
                                          std::span<const std::byte> extensions, Fd memory) {
    if (auto fine = check_envelope(what, extensions); !fine) return fine.error();
    auto channel = channel_for(caller, path, Kind::kQueue, kWrite);
    if (!channel) return channel.error();
    auto size = payload::check_sealed(memory.get(), payload::Sealing::kWhole);
    if (!size) {
        (*channel)->note_error(size.error().operation);
        return size.error();
    }
    if (what.size != 0 && what.size != *size) return Fault{EINVAL, "the memfd has another size"};
    if (*size == 0) return Fault{EINVAL, "the memfd is empty"};
    if (*size > (*channel)->settings().max_payload) {
        return Fault{EMSGSIZE, "larger than max-payload"};
    }
    auto charge = store_.budget().adopt(store_.ledger().account(caller.subject.uid), *size);
    if (!charge) {
        (*channel)->note_error(charge.error().operation);
        return charge.error();
    }
    auto readable = payload::reopen_read_only(memory.get());
    if (!readable) return readable.error();
    auto payload = store_.add_sealed((*channel)->id(), std::move(*readable), *size,
                                     caller.subject.uid, std::move(*charge));
    const Sent sent{payload->id, payload->size};
    auto batch = batch_of(**channel, caller, what, extensions, std::move(payload));
    if (!batch) return batch.error();
    return Ready{std::move(*channel), std::move(*batch), sent};
}

void Exchange::send(const Caller& caller, std::string_view path, const ControlSend& what,
                    std::span<const std::byte> extensions, Fd memory, Done done) {
    auto ready = prepare(caller, path, what, extensions, std::move(memory));
    if (!ready) return done(ready.error());
    push_detached(ready->channel, std::move(ready->batch),
                  [done = std::move(done), sent = ready->sent](int error) {
                      done(error ? Result<Sent>(refusal(error)) : Result<Sent>(sent));
                  });
}

// ---- pools --------------------------------------------------------------------------------------

Result<PoolGrant> Exchange::open_pool(const Caller& caller, std::string_view path,
                                      const ControlPoolOpen& shape, Fd memory) {
    auto channel = channel_for(caller, path, Kind::kQueue, kWrite);
    if (!channel) return channel.error();
    if ((*channel)->is_topic()) return Fault{EOPNOTSUPP, "a chunk is lent to one receiver"};
    if ((*channel)->settings().payloads != channel::Payloads::kPooled) {
        return Fault{EPERM, "pooled payloads are off here; `payloads pooled` in ctl allows them"};
    }
    auto size = payload::check_sealed(memory.get(), payload::Sealing::kPool);
    if (!size) return size.error();
    auto charge = store_.budget().adopt(store_.ledger().account(caller.subject.uid), *size);
    if (!charge) return charge.error();
    auto pool = store_.open_pool((*channel)->id(), caller.subject.uid, caller.subject.pid,
                                 {shape.chunk_size, shape.stride, shape.chunk_count}, memory,
                                 std::move(*charge));
    if (!pool) return pool.error();
    PoolGrant grant;
    grant.pool = {(*pool)->id, shape.chunk_size, shape.stride, shape.chunk_count, 0};
    grant.ledger.reset(::fcntl((*pool)->ledger(), F_DUPFD_CLOEXEC, 3));
    if (!grant.ledger) return errno_fault("duplicate a descriptor");
    return grant;
}

Result<PoolGrant> Exchange::map_pool(const Caller& caller, std::uint64_t id) {
    auto pool = store_.pool(id);
    if (!pool) return Fault{ENOENT, "there is no such pool"};
    bool is_allowed =
        caller.subject.uid == pool->owner || may(caller, pool->channel, Kind::kQueue, kRead);
    if (!is_allowed) return Fault{EACCES, "the pool is for those who may read its channel"};
    PoolGrant grant;
    grant.pool = {pool->id, pool->shape.chunk_size, pool->shape.stride, pool->shape.chunk_count, 0};
    auto memory = payload::reopen_read_only(pool->memory());
    if (!memory) return memory.error();
    grant.memory = std::move(*memory);
    grant.ledger.reset(::fcntl(pool->ledger(), F_DUPFD_CLOEXEC, 3));
    if (!grant.ledger) return errno_fault("duplicate a descriptor");
    return grant;
}

Result<void> Exchange::close_pool(const Caller& caller, std::uint64_t pool) {
    return store_.close_pool(pool, caller.subject.uid);
}

Result<Claimed> Exchange::payload_memory(const Caller& caller, std::uint64_t id) {
    auto payload = store_.find(id);
    if (!payload || payload->kind != PayloadKind::kSealed) {
        return Fault{ENOENT, "there is no such sealed payload"};
    }
    if (!may(caller, payload->channel, Kind::kPayloadDir, kSearch) ||
        !tree_.permits({id, Kind::kPayload}, kRead, caller.subject.uid, caller.subject.gid,
                       caller.groups)) {
        return Fault{EACCES, "payload: permission denied"};
    }
    // A file of its own, so that whether somebody holds it can be told.
    auto memory = payload::reopen_read_only(payload->file());
    if (!memory) return memory.error();
    return Claimed{std::move(*memory), payload->size};
}

// ---- lazy payloads ------------------------------------------------------------------------------

Result<Sent> Exchange::offer_lazy(const Caller& caller, std::string_view path,
                                  const ControlSend& what, std::span<const std::byte> extensions,
                                  std::weak_ptr<payload::Producer> producer) {
    if (auto fine = check_envelope(what, extensions); !fine) return fine.error();
    auto channel = channel_for(caller, path, Kind::kQueue, kWrite);
    if (!channel) return channel.error();
    if ((*channel)->is_topic()) {
        return Fault{EOPNOTSUPP, "a producer serves one receiver: publish a sealed payload"};
    }
    if (what.size == 0) return Fault{EINVAL, "an empty payload"};
    if (what.size > (*channel)->settings().max_payload) {
        return Fault{EMSGSIZE, "larger than max-payload"};
    }
    auto payload =
        store_.add_lazy((*channel)->id(), what.size, caller.subject.uid, std::move(producer));
    return enqueue(*channel, caller, what, extensions, std::move(payload));
}

Result<std::shared_ptr<payload::Producer>> Exchange::lazy_producer(const Caller& caller,
                                                                   const ControlLazy& wanted) {
    auto payload = store_.find(wanted.payload_id);
    if (!payload || payload->kind != PayloadKind::kLazy) {
        return Fault{ENOENT, "there is no such lazy payload"};
    }
    if (!may(caller, payload->channel, Kind::kQueue, kRead)) {
        return Fault{EACCES, "the payload is for those who may read its channel"};
    }
    bool known = wanted.mode == LazyMode::kFaults || wanted.mode == LazyMode::kWhole;
    if (!known || wanted.length != in_pages(payload->size) || wanted.address % kPage != 0) {
        return Fault{EINVAL, "the range is not the payload's size in whole pages"};
    }
    auto producer = payload->producer();
    if (!producer) return Fault{ECONNRESET, "the producer is gone"};
    return producer;
}

void Exchange::lazy_report(const ControlLazyReport& report) noexcept {
    store_.counters.lazy_faults.fetch_add(report.faults, std::memory_order_relaxed);
    store_.counters.lazy_pages.fetch_add(report.pages, std::memory_order_relaxed);
}

// ---- events -------------------------------------------------------------------------------------

Result<std::unique_ptr<Watch>> Exchange::watch(const Caller& caller, std::string_view path,
                                               std::string_view filter, Fd counter) {
    auto channel = channel_for(caller, path, Kind::kNotify, kRead);
    if (!channel) return channel.error();
    auto parsed = channel::parse_filter(filter);
    if (!parsed) return parsed.error();
    auto charge = access::Charge::take(store_.ledger().account(caller.subject.uid),
                                       access::Resource::kOpenFiles, 1);
    if (!charge) return Fault{EDQUOT, "the user's limit of open files is reached"};
    return std::unique_ptr<Watch>(std::make_unique<Listening>(
        std::move(*channel),
        std::make_shared<EventCounter>(std::move(counter), adder_, *parsed, std::move(*charge))));
}

Result<std::unique_ptr<Watch>> Exchange::watch(const Caller& caller, std::string_view path,
                                               std::string_view filter, int signal) {
    auto channel = channel_for(caller, path, Kind::kNotify, kWrite);
    if (!channel) return channel.error();
    std::string text = "signal " + std::to_string(signal) + " ";
    text.append(filter);
    auto listener =
        make_signal(**channel, text, caller.subject, store_.ledger().account(caller.subject.uid));
    if (!listener) return listener.error();
    return std::unique_ptr<Watch>(
        std::make_unique<Listening>(std::move(*channel), std::move(*listener)));
}

// ---- hand-offs ----------------------------------------------------------------------------------

void Exchange::hand_off(const Caller& caller, std::string_view path, std::string_view name,
                        std::string_view target, const ControlSend& what,
                        std::span<const std::byte> extensions,
                        std::function<void(Result<Sent>)> done) {
    ControlSend envelope = what;
    envelope.type = static_cast<std::uint8_t>(FrameType::kData);
    if (auto fine = check_envelope(envelope, extensions); !fine) return done(fine.error());
    auto from = channel_for(caller, path, Kind::kShareDir, kWrite | 1);
    if (!from) return done(from.error());
    auto to = channel_for(caller, target, Kind::kQueue, kWrite);
    if (!to) return done(to.error());
    if ((*to)->is_topic()) return done(Fault{EINVAL, "a region cannot be published to several"});
    auto region = tree_.shares().find((*from)->id(), name);
    if (!region) return done(Fault{ENOENT, "there is no such region"});
    if (!tree_.permits({region->id, Kind::kRegion}, kWrite, caller.subject.uid, caller.subject.gid,
                       caller.groups)) {
        return done(Fault{EACCES, "share: permission denied"});
    }
    // A region that was taken away cannot be put back under those who had it: look for room before.
    if ((*to)->full()) return done(Fault{EAGAIN, "the channel is paused or full"});
    worker_.add(caller.subject.uid,
                [this, caller, envelope, from = *from, to = *to, name = std::string(name),
                 more = std::vector<std::byte>(extensions.begin(), extensions.end()),
                 done = std::move(done)] {
                    auto taken = tree_.shares().take_away(from->id(), name);
                    if (!taken) return done(taken.error());
                    auto attributes = taken->attributes;
                    auto payload =
                        store_.add_region(to->id(), std::move(taken->memory), taken->size,
                                          taken->owner, std::move(taken->charge));
                    auto sent = enqueue(to, caller, envelope, more, payload);
                    if (!sent) {
                        // It became full meanwhile: the region is there again, as new memory.
                        Shares::Taken returned;
                        std::tie(returned.memory, returned.charge) = payload->take_back();
                        returned.size = payload->size;
                        auto back = tree_.shares().put_back(from->id(), name, std::move(attributes),
                                                            std::move(returned));
                        if (!back) to->note_error("handoff: " + back.error().operation);
                    }
                    done(std::move(sent));
                });
}

Result<Claimed> Exchange::claim(const Caller& caller, std::uint64_t id) {
    auto payload = store_.find(id);
    if (!payload || payload->kind != PayloadKind::kHandoff) {
        return Fault{ENOENT, "there is no such region on its way"};
    }
    auto memory = payload->claim(caller.subject.pid);
    if (!memory) {
        return Fault{EPERM, "it was claimed already, or another process received it"};
    }
    return Claimed{std::move(*memory), payload->size};
}

void Exchange::process_gone(pid_t pid) noexcept {
    store_.process_gone(pid);
}

}  // namespace ipcfs::tree
