// Performs the requests of a connection. On the loop.
#include <algorithm>
#include <unistd.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <control/connection.hpp>

namespace ipcfs::control {
namespace asio = boost::asio;

void Connection::handle_packet(std::span<const std::byte> packet, std::vector<ReceivedFd>& fds) {
    const auto request = parse_request(packet, fds.size());
    if (!request) return refuse(reply_to(packet), request.error());
    const Arrived at{request->to, packet, fds};
    const auto done =
        std::visit([&](const auto& asked) { return perform(at, asked); }, request->body);
    if (!done) refuse(at.to, done.error());
}

void Connection::refuse(ReplyTo to, const Fault& why) {
    context_.log.debug("control: pid ", caller_.subject.pid, ", operation ", to.op, ": ",
                       why.operation);
    if (to.op == static_cast<std::uint16_t>(ControlOp::kLazyReport)) return;  // has no reply
    enqueue(make_error(to, why), {});
}

template <class T>
Result<void> Connection::answer(ReplyTo to, const T& body, std::vector<ReceivedFd> fds,
                                std::string_view text) {
    enqueue(make_reply(to, body, text), std::move(fds));
    return {};
}

std::vector<ReceivedFd> Connection::received(Fd first, Fd second) const {
    std::vector<ReceivedFd> fds;
    for (Fd* each : {&first, &second}) {
        if (*each) fds.emplace_back(std::move(*each), context_.executor, 0);
    }
    return fds;
}

// A reply that may be given later, on any thread; it is posted to the loop.
Result<tree::Exchange::Done> Connection::deferred_reply(ReplyTo to) {
    if (pending_ >= kMaxPending) {
        return Fault{EAGAIN, "this connection has too many unanswered messages"};
    }
    ++pending_;
    return [to, &loop = context_.loop, weak = weak_from_this()](Result<tree::Sent> sent) {
        asio::dispatch(loop, [to, weak, sent = std::move(sent)] {
            auto self = weak.lock();
            if (!self || !self->open()) return;
            --self->pending_;
            if (!sent) return self->refuse(to, sent.error());
            static_cast<void>(self->answer(to, ControlSent{sent->payload, sent->size}));
        });
    };
}

Result<void> Connection::perform(const Arrived& at, const Hello&) {
    ControlWelcome welcome;
    welcome.pid = static_cast<std::uint64_t>(::getpid());
    welcome.mount_length = static_cast<std::uint32_t>(context_.config.mount.size());
    return answer(at.to, welcome, {}, context_.config.mount);
}

// ---- memory -------------------------------------------------------------------------------------

// What to answer unless the memory is sealed already: a fault, or nothing, since the request is handled
// again once it is sealed. Adding seals takes the file's lock, which a client may hold for ever, so an
// executor does it.
std::optional<Result<void>> Connection::seal_first(const Arrived& at, payload::Sealing sealing) {
    if (at.fds[0].kind() != FdKind::kMemory) return Fault{EPERM, "the descriptor is not a memfd"};
    if (payload::is_sealed(at.fds[0].get(), sealing)) return std::nullopt;
    if (context_.executor->is_overloaded(caller_.subject.uid)) {
        return Fault{EBUSY, "this user's descriptors take too long to seal"};
    }
    sealing_ = true;
    struct Job {
        Packet packet;
        std::vector<ReceivedFd> fds;
        Result<std::uint64_t> sealed = Fault{};
    };
    auto job = std::make_shared<Job>(Job{{at.packet.begin(), at.packet.end()}, std::move(at.fds)});
    context_.executor->add(
        caller_.subject.uid, [job, sealing, &loop = context_.loop, weak = weak_from_this()] {
            job->sealed = payload::check_sealed(job->fds[0].get(), sealing);
            if (weak.expired()) return;  // then the loop may be gone, too
            asio::post(loop, [job, weak] {
                auto self = weak.lock();
                if (!self || !self->open()) return;
                self->sealing_ = false;
                if (job->sealed) {
                    self->handle_packet(job->packet, job->fds);
                } else {
                    self->refuse(reply_to(job->packet), job->sealed.error());
                }
                if (self->open()) self->when_readable(self->socket_, &Connection::read_packets);
            });
        });
    return Result<void>();
}

// Replies at once unless the message must be written to disk.
Result<void> Connection::perform(const Arrived& at, const Send& asked) {
    if (auto reply = seal_first(at, payload::Sealing::kWhole)) return *reply;
    auto done = deferred_reply(at.to);
    if (!done) return done.error();
    context_.exchange.send(caller_, asked.message, at.fds[0].release(), std::move(*done));
    return {};
}

Result<void> Connection::perform(const Arrived& at, const HandOff& asked) {
    auto done = deferred_reply(at.to);
    if (!done) return done.error();
    context_.exchange.hand_off(caller_, asked.path, asked.region, asked.message, std::move(*done));
    return {};
}

Result<void> Connection::answer_memory(const Arrived& at, Result<tree::Claimed> claimed) {
    if (!claimed) return claimed.error();
    return answer(at.to, ControlId{claimed->size}, received(std::move(claimed->memory)));
}

Result<void> Connection::perform(const Arrived& at, const Claim& asked) {
    return answer_memory(at, context_.exchange.claim(caller_, asked.id));
}

Result<void> Connection::perform(const Arrived& at, const PayloadFd& asked) {
    return answer_memory(at, context_.exchange.payload_memory(caller_, asked.id));
}

// ---- pools --------------------------------------------------------------------------------------

Result<void> Connection::answer_pool(const Arrived& at, tree::PoolGrant grant) {
    const ControlPool pool{grant.id, grant.shape.chunk_size, grant.shape.stride,
                           grant.shape.chunk_count, 0};
    return answer(at.to, pool, received(std::move(grant.memory), std::move(grant.ledger)));
}

Result<void> Connection::perform(const Arrived& at, const OpenPool& asked) {
    if (auto reply = seal_first(at, payload::Sealing::kPool)) return *reply;
    if (pools_.size() >= kMaxPools) return Fault{EDQUOT, "too many pools of one connection"};
    auto grant = context_.exchange.open_pool(caller_, asked.path, asked.shape, at.fds[0].release());
    if (!grant) return grant.error();
    pools_.insert(grant->id);
    return answer_pool(at, std::move(*grant));
}

Result<void> Connection::perform(const Arrived& at, const MapPool& asked) {
    auto grant = context_.exchange.map_pool(caller_, asked.id);
    if (!grant) return grant.error();
    return answer_pool(at, std::move(*grant));
}

Result<void> Connection::perform(const Arrived& at, const ClosePool& asked) {
    if (auto closed = context_.exchange.close_pool(caller_, asked.id); !closed) return closed;
    pools_.erase(asked.id);
    return answer(at.to, ControlId{asked.id});
}

// ---- watches ------------------------------------------------------------------------------------

Result<void> Connection::keep_watch(const Arrived& at, Result<std::unique_ptr<tree::Watch>> made) {
    if (!made) return made.error();
    if (watches_.size() >= kMaxWatches) return Fault{EDQUOT, "too many watches of one connection"};
    watches_.emplace(++last_watch_, std::move(*made));
    return answer(at.to, ControlId{last_watch_});
}

Result<void> Connection::perform(const Arrived& at, const WatchByEventFd& asked) {
    if (at.fds[0].kind() != FdKind::kEventFd) {
        return Fault{EINVAL, "the descriptor is not an eventfd"};
    }
    return keep_watch(
        at, context_.exchange.watch(caller_, asked.path, asked.filter, at.fds[0].release()));
}

Result<void> Connection::perform(const Arrived& at, const WatchBySignal& asked) {
    return keep_watch(at, context_.exchange.watch(caller_, asked.path, asked.filter, asked.signal));
}

Result<void> Connection::perform(const Arrived& at, const Unwatch& asked) {
    if (watches_.erase(asked.id) == 0) return Fault{ENOENT, "no such watch"};
    return answer(at.to, ControlId{asked.id});
}

// ---- lazy payloads ------------------------------------------------------------------------------

Result<void> Connection::perform(const Arrived& at, const OfferLazy& asked) {
    if (!mailbox_) mailbox_ = std::make_shared<Mailbox>(context_, weak_from_this());
    auto sent = context_.exchange.offer_lazy(caller_, asked.message, mailbox_);
    if (!sent) return sent.error();
    return answer(at.to, ControlSent{sent->payload, sent->size});
}

Result<void> Connection::perform(const Arrived& at, const AttachLazy& asked) {
    payload::LazyRange wanted = asked.range;
    if (at.fds[0].kind() != (wanted.is_whole ? FdKind::kMemory : FdKind::kUserFault)) {
        return Fault{EINVAL, "the first descriptor does not fit the mode"};
    }
    if (at.fds[1].kind() != FdKind::kSocket || !is_unix_socket(at.fds[1].get())) {
        return Fault{EINVAL, "the second descriptor is not a Unix socket"};
    }
    auto producer = context_.exchange.lazy_producer(caller_, wanted);
    if (!producer) return producer.error();
    wanted.uid = caller_.subject.uid;
    wanted.pid = std::max(caller_.subject.pid, 0);
    // serve() takes both descriptors, even if it fails.
    if (!(*producer)->serve(wanted, at.fds[0].release(), at.fds[1].release())) {
        return Fault{ECONNRESET, "the producer is gone or overloaded"};
    }
    return answer(at.to, ControlId{wanted.payload});
}

Result<void> Connection::perform(const Arrived&, const ReportLazy& asked) {
    context_.exchange.lazy_report(asked.faults, asked.pages);
    return {};
}

}  // namespace ipcfs::control
