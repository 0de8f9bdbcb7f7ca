// Hand-over of memory. Any thread.
#include <fcntl.h>
#include <unistd.h>

#include <payload/memory.hpp>

#include <access/acl.hpp>
#include <access/guard.hpp>
#include <ipcfs/frame.hpp>
#include <tree/channel_file.hpp>
#include <tree/exchange.hpp>
#include <tree/listeners.hpp>

namespace ipcfs::tree {

using access::kRead, access::kSearch, access::kWrite;
using channel::Endpoint;
using payload::PayloadPtr;

namespace {

constexpr std::uint64_t kPage = 4096;

std::uint64_t in_pages(std::uint64_t size) {
    return (size + kPage - 1) / kPage * kPage;
}

// Why a message was not queued, for its sender.
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

Result<void> check_size(std::uint64_t size, const Endpoint& channel) {
    if (size == 0) return Fault{EINVAL, "the payload is empty"};
    if (size > channel.settings().max_payload) return Fault{EMSGSIZE, "larger than max-payload"};
    return {};
}

}  // namespace

Exchange::Exchange(Tree& tree, payload::Store& store, Executor& worker)
    : tree_(tree), store_(store), worker_(worker) {}

Result<ChannelPtr> Exchange::target(const Caller& caller, const MemoryMessage& message) const {
    const FrameView view{{}, message.extensions, {}};
    if (!valid_extensions(message.extensions) || view.extension(ExtensionType::kPayload)) {
        return Fault{EINVAL, "extensions are malformed, or one is the daemon's"};
    }
    return channel_for(caller, message.path, Kind::kQueue, kWrite);
}

// For payloads and pools, whose ids are known also to users who cannot reach their channel.
bool Exchange::may_read_queue(const Caller& caller, std::uint64_t channel) const {
    return channel_for(caller, tree_.registry().path(channel), Kind::kQueue, kRead).has_value();
}

Result<PayloadPtr> Exchange::find(std::uint64_t id, PayloadKind kind) const {
    auto payload = store_.find(id);
    if (!payload || payload->kind != kind) return Fault{ENOENT, "there is no such payload"};
    return payload;
}

Result<queue::Batch> Exchange::batch_of(const Endpoint& channel, const Caller& caller,
                                        const MemoryMessage& of, PayloadPtr payload) const {
    std::vector<std::byte> extensions(of.extensions.begin(), of.extensions.end());
    const PayloadRef ref = payload->ref();
    if (!append_extension(extensions, ExtensionType::kPayload, std::as_bytes(std::span(&ref, 1)))) {
        return Fault{EINVAL, "the extensions leave no room for the payload's"};
    }
    queue::MessageRef message = channel.make_message(extensions, {});
    if (!message) return Fault{ENOMEM, "memory for the message"};
    if (!message->charge(account_of(caller))) {
        return Fault{EDQUOT, "the user's limit of messages or bytes is reached"};
    }
    message->payload = std::move(payload);
    message->envelope = of.envelope;
    message->envelope.sender = caller.subject;
    queue::Batch batch;
    batch.add(std::move(message));
    return batch;
}

Result<Sent> Exchange::enqueue(const ChannelPtr& channel, const Caller& caller,
                               const MemoryMessage& message, PayloadPtr payload) const {
    if (channel->settings().durable != channel::Durable::kOff) {
        return Fault{EOPNOTSUPP,
                     "a durable channel keeps bytes, not a region or what its producer "
                     "fills on demand: send it sealed"};
    }
    const Sent sent{payload->id, payload->size};
    auto batch = batch_of(*channel, caller, message, std::move(payload));
    if (!batch) return batch.error();
    const auto push = channel->try_push(*batch, queue::Via::kOther, false, nullptr);
    if (push != channel::Push::kQueued) return refusal(error_of(push));
    return sent;
}

// ---- sealed memory ------------------------------------------------------------------------------

Result<PayloadPtr> Exchange::adopt(Endpoint& channel, const Caller& caller, std::uint64_t wanted,
                                   const Fd& memory) {
    const auto refused = [&](const Fault& why) {
        channel.note_error(why.operation);
        return why;
    };
    auto size = payload::check_sealed(memory.get(), payload::Sealing::kWhole);
    if (!size) return refused(size.error());
    if (wanted != 0 && wanted != *size) return Fault{EINVAL, "the memfd has another size"};
    if (auto fits = check_size(*size, channel); !fits) return fits.error();
    auto charge = store_.budget().adopt(account_of(caller), *size);
    if (!charge) return refused(charge.error());
    auto readable = payload::reopen_read_only(memory.get());
    if (!readable) return readable.error();
    return store_.add_sealed(channel.id(), std::move(*readable), *size, caller.subject.uid,
                             std::move(*charge));
}

void Exchange::send(const Caller& caller, const MemoryMessage& message, Fd memory, Done done) {
    auto channel = target(caller, message);
    if (!channel) return done(channel.error());
    auto payload = adopt(**channel, caller, message.size, memory);
    if (!payload) return done(payload.error());
    const Sent sent{(*payload)->id, (*payload)->size};
    auto batch = batch_of(**channel, caller, message, std::move(*payload));
    if (!batch) return done(batch.error());
    push_detached(*channel, std::move(*batch), [done = std::move(done), sent](int error) {
        done(error ? Result<Sent>(refusal(error)) : Result<Sent>(sent));
    });
}

Result<Claimed> Exchange::payload_memory(const Caller& caller, std::uint64_t id) {
    auto found = find(id, PayloadKind::kSealed);
    if (!found) return found.error();
    const payload::Payload& payload = **found;
    const auto path = tree_.registry().path(payload.channel);
    if (!channel_for(caller, path, Kind::kPayloadDir, kSearch) ||
        !tree_.permits({id, Kind::kPayload}, kRead, caller.identity)) {
        return Fault{EACCES, "payload: permission denied"};
    }
    // An open file of its own: a lease can then tell whether somebody holds it.
    auto memory = payload::reopen_read_only(payload.file());
    if (!memory) return memory.error();
    return Claimed{std::move(*memory), payload.size};
}

// ---- pools --------------------------------------------------------------------------------------

Result<PoolGrant> Exchange::grant(const payload::Pool& pool, Fd memory) {
    Fd ledger(::fcntl(pool.ledger(), F_DUPFD_CLOEXEC, 3));
    if (!ledger) return errno_fault("duplicate a descriptor");
    return PoolGrant{pool.id, pool.shape, std::move(memory), std::move(ledger)};
}

Result<PoolGrant> Exchange::open_pool(const Caller& caller, std::string_view path,
                                      const payload::PoolShape& shape, Fd memory) {
    auto channel = channel_for(caller, path, Kind::kQueue, kWrite);
    if (!channel) return channel.error();
    if ((*channel)->is_topic()) return Fault{EOPNOTSUPP, "a chunk is lent to one receiver"};
    if ((*channel)->settings().payloads != channel::Payloads::kPooled) {
        return Fault{EPERM, "pooled payloads are off here; `payloads pooled` in ctl allows them"};
    }
    auto size = payload::check_sealed(memory.get(), payload::Sealing::kPool);
    if (!size) return size.error();
    auto charge = store_.budget().adopt(account_of(caller), *size);
    if (!charge) return charge.error();
    auto pool = store_.open_pool((*channel)->id(), caller.subject.uid, caller.subject.pid, shape,
                                 memory, std::move(*charge));
    if (!pool) return pool.error();
    return grant(**pool, {});
}

Result<PoolGrant> Exchange::map_pool(const Caller& caller, std::uint64_t id) {
    const auto pool = store_.pool(id);
    if (!pool) return Fault{ENOENT, "there is no such pool"};
    if (!access::may_map_pool(pool->owner, caller.subject.uid,
                              may_read_queue(caller, pool->channel))) {
        return Fault{EACCES, "the pool is for those who may read its channel"};
    }
    auto memory = payload::reopen_read_only(pool->memory());
    if (!memory) return memory.error();
    return grant(*pool, std::move(*memory));
}

Result<void> Exchange::close_pool(const Caller& caller, std::uint64_t pool) {
    return store_.close_pool(pool, caller.subject.uid);
}

// ---- lazy payloads ------------------------------------------------------------------------------

Result<Sent> Exchange::offer_lazy(const Caller& caller, const MemoryMessage& message,
                                  std::weak_ptr<payload::Producer> producer) {
    auto channel = target(caller, message);
    if (!channel) return channel.error();
    if ((*channel)->is_topic()) {
        return Fault{EOPNOTSUPP, "a producer serves one receiver: publish a sealed payload"};
    }
    if (auto fits = check_size(message.size, **channel); !fits) return fits.error();
    return enqueue(
        *channel, caller, message,
        store_.add_lazy((*channel)->id(), message.size, caller.subject.uid, std::move(producer)));
}

Result<std::shared_ptr<payload::Producer>> Exchange::lazy_producer(
    const Caller& caller, const payload::LazyRange& wanted) {
    auto payload = find(wanted.payload, PayloadKind::kLazy);
    if (!payload) return payload.error();
    if (!may_read_queue(caller, (*payload)->channel)) {
        return Fault{EACCES, "the payload is for those who may read its channel"};
    }
    if (wanted.length != in_pages((*payload)->size) || wanted.address % kPage != 0) {
        return Fault{EINVAL, "the range is not the payload's size in whole pages"};
    }
    auto producer = (*payload)->producer();
    if (!producer) return Fault{ECONNRESET, "the producer is gone"};
    return producer;
}

void Exchange::lazy_report(std::uint64_t faults, std::uint64_t pages) noexcept {
    store_.counters.lazy_faults.fetch_add(faults, std::memory_order_relaxed);
    store_.counters.lazy_pages.fetch_add(pages, std::memory_order_relaxed);
}

// ---- events -------------------------------------------------------------------------------------

Watch::Watch(ChannelPtr channel, std::shared_ptr<channel::EventListener> listener)
    : channel_(std::move(channel)), listener_(std::move(listener)) {
    channel_->events().add(listener_);
}

Watch::~Watch() {
    channel_->events().remove(listener_.get());
}

Result<std::unique_ptr<Watch>> Exchange::watch(const Caller& caller, std::string_view path,
                                               std::string_view filter, Fd counter) {
    auto channel = channel_for(caller, path, Kind::kNotify, kRead);
    if (!channel) return channel.error();
    auto listener = make_counter(std::move(counter), adder_, filter, account_of(caller));
    if (!listener) return listener.error();
    return std::make_unique<Watch>(std::move(*channel), std::move(*listener));
}

Result<std::unique_ptr<Watch>> Exchange::watch(const Caller& caller, std::string_view path,
                                               std::string_view filter, int signal) {
    auto channel = channel_for(caller, path, Kind::kNotify, kWrite);
    if (!channel) return channel.error();
    auto listener = make_signal(**channel, signal, filter, caller.subject, account_of(caller));
    if (!listener) return listener.error();
    return std::make_unique<Watch>(std::move(*channel), std::move(*listener));
}

// ---- hand-offs ----------------------------------------------------------------------------------

// Takes long.
Result<Sent> Exchange::move_region(const Endpoint& from, const std::string& name,
                                   const ChannelPtr& to, const Caller& caller,
                                   const MemoryMessage& message) {
    auto taken = tree_.shares().take_away(from.id(), name);
    if (!taken) return taken.error();
    auto payload = store_.add_region(to->id(), std::move(taken->memory), taken->size,
                                     taken->attributes.uid, std::move(taken->charge));
    auto sent = enqueue(to, caller, message, payload);
    if (sent) return sent;
    // The channel became full meanwhile: the region comes back, as new memory.
    std::tie(taken->memory, taken->charge) = payload->take_back();
    if (auto back = tree_.shares().put_back(from.id(), name, std::move(*taken)); !back) {
        to->note_error("handoff: " + back.error().operation);
    }
    return sent;
}

void Exchange::hand_off(const Caller& caller, std::string_view path, std::string_view name,
                        const MemoryMessage& message, Done done) {
    auto from = channel_for(caller, path, Kind::kShareDir, kWrite | kSearch);
    if (!from) return done(from.error());
    auto to = target(caller, message);
    if (!to) return done(to.error());
    if ((*to)->is_topic()) return done(Fault{EINVAL, "a region cannot be published to several"});
    auto region = tree_.shares().find((*from)->id(), name);
    if (!region) return done(Fault{ENOENT, "there is no such region"});
    if (!tree_.permits({region->id, Kind::kRegion}, kWrite, caller.identity)) {
        return done(Fault{EACCES, "share: permission denied"});
    }
    // Old mappings of a region that is taken away fault, even if it is put back: look for room first.
    if ((*to)->full()) return done(Fault{EAGAIN, "the channel is paused or full"});
    worker_.add(caller.subject.uid,
                [this, caller, envelope = message.envelope, from = *from, to = *to,
                 name = std::string(name), done = std::move(done),
                 extensions = std::vector(message.extensions.begin(), message.extensions.end())] {
                    done(move_region(*from, name, to, caller, {{}, envelope, extensions}));
                });
}

Result<Claimed> Exchange::claim(const Caller& caller, std::uint64_t id) {
    auto payload = find(id, PayloadKind::kHandoff);
    if (!payload) return payload.error();
    auto memory = (*payload)->claim(caller.subject.pid);
    if (!memory) {
        return Fault{EPERM, "it was claimed already, or another process received it"};
    }
    return Claimed{std::move(*memory), (*payload)->size};
}

}  // namespace ipcfs::tree
