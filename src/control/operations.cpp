// Performs the requests of a connection. On the loop.
#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <unistd.h>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <control/connection.hpp>
#include <payload/memory.hpp>

namespace ipcfs::control {
namespace asio = boost::asio;

namespace {

Fault too_many(const char* what) {
    return Fault{EDQUOT, std::string("control: too many ") + what + " of one connection"};
}

// Whether all seals are set already; the question takes no lock.
bool is_sealed(int memory, payload::Sealing sealing) {
    const auto seals = static_cast<unsigned>(::fcntl(memory, F_GET_SEALS));
    constexpr unsigned kSize = F_SEAL_SHRINK | F_SEAL_GROW;
    constexpr unsigned kFutureWrite = 0x0010;  // F_SEAL_FUTURE_WRITE
    if ((seals & kSize) != kSize) return false;
    if ((seals & F_SEAL_WRITE) != 0) return true;
    return sealing == payload::Sealing::kPool && (seals & kFutureWrite) != 0;
}

}  // namespace

struct Connection::Deferred {
    Packet packet;
    Guest memory;
    Result<std::uint64_t> sealed = Fault{EIO, {}};
};

template <class T>
void Connection::answer(const Request& request, const T& body, std::vector<Guest>&& fds,
                        std::string_view text) {
    enqueue(make_reply(request, body, text), std::move(fds));
}

void Connection::refuse(const Request& request, const Fault& why) {
    refuse(static_cast<std::uint16_t>(request.op), request.tag, why);
}

void Connection::refuse(std::uint16_t op, std::uint32_t tag, const Fault& why) {
    ++around_.counters.refused;
    around_.log.debug("control: pid ", caller_.subject.pid, ", operation ", op, ": ",
                      why.operation);
    if (op == static_cast<std::uint16_t>(ControlOp::kLazyReport)) return;  // has no reply
    enqueue(make_error(op, tag, why), {});
}

void Connection::perform(const Request& request, std::span<const std::byte> packet,
                         std::vector<Guest>& fds) {
    tree::Exchange& exchange = around_.exchange;
    // Replies with a memory descriptor.
    const auto give = [&](Result<tree::Claimed> claimed) {
        if (!claimed) return refuse(request, claimed.error());
        std::vector<Guest> memory;
        memory.push_back(own(std::move(claimed->memory)));
        answer(request, ControlId{claimed->size}, std::move(memory));
    };
    switch (request.op) {
        case ControlOp::kHello: {
            ControlWelcome welcome;
            welcome.pid = static_cast<std::uint64_t>(::getpid());
            welcome.mount_length = static_cast<std::uint32_t>(around_.config.mount.size());
            return answer(request, welcome, {}, around_.config.mount);
        }
        case ControlOp::kSend:
        case ControlOp::kPoolOpen:
            if (fds[0].kind() != FdKind::kMemory)
                return refuse(request, Fault{EPERM, "the descriptor is not a memfd"});
            return seal_then(request, packet, std::move(fds[0]));
        case ControlOp::kPoolMap: {
            auto grant = exchange.map_pool(caller_, request.as<ControlId>().id);
            if (!grant) return refuse(request, grant.error());
            std::vector<Guest> both;
            both.push_back(own(std::move(grant->memory)));
            both.push_back(own(std::move(grant->ledger)));
            return answer(request, grant->pool, std::move(both));
        }
        case ControlOp::kPoolClose: {
            const auto id = request.as<ControlId>().id;
            if (auto closed = exchange.close_pool(caller_, id); !closed)
                return refuse(request, closed.error());
            pools_.erase(id);
            return answer(request, ControlId{id});
        }
        case ControlOp::kEventFd:
        case ControlOp::kSignal: return watch(request, fds);
        case ControlOp::kUnwatch: {
            const auto id = request.as<ControlId>().id;
            if (watches_.erase(id) == 0) return refuse(request, Fault{ENOENT, "no such watch"});
            return answer(request, ControlId{id});
        }
        case ControlOp::kLazyOffer: {
            if (!mailbox_) mailbox_ = std::make_shared<Mailbox>(around_, weak_from_this());
            auto sent = exchange.offer_lazy(caller_, request.path, request.as<ControlSend>(),
                                            request.extensions, mailbox_);
            if (!sent) return refuse(request, sent.error());
            return answer(request, ControlSent{sent->payload, sent->size});
        }
        case ControlOp::kLazyAttach: return attach(request, fds);
        case ControlOp::kLazyReport: return exchange.lazy_report(request.as<ControlLazyReport>());
        case ControlOp::kHandoff: return hand_off(request);
        case ControlOp::kClaim: return give(exchange.claim(caller_, request.as<ControlId>().id));
        case ControlOp::kPayloadFd:
            return give(exchange.payload_memory(caller_, request.as<ControlId>().id));
        default: return refuse(request, Fault{EOPNOTSUPP, "unknown operation"});
    }
}

// Adding seals takes the file's lock, which a client may hold for ever, so an executor does it. Memory
// that is sealed already proceeds at once.
void Connection::seal_then(const Request& request, std::span<const std::byte> packet,
                           Guest memory) {
    const auto sealing =
        request.op == ControlOp::kSend ? payload::Sealing::kWhole : payload::Sealing::kPool;
    if (is_sealed(memory.get(), sealing)) return with_memory(request, std::move(memory));
    if (around_.executor->is_overloaded(caller_.subject.uid)) {
        return refuse(request, Fault{EBUSY, "this user's descriptors take too long to seal"});
    }
    sealing_ = true;
    auto job = std::make_shared<Deferred>();
    job->packet.assign(packet.begin(), packet.end());
    job->memory = std::move(memory);
    around_.executor->add(
        caller_.subject.uid, [job, sealing, &loop = around_.loop, weak = weak_from_this()] {
            job->sealed = payload::check_sealed(job->memory.get(), sealing);
            if (weak.expired()) return;  // then the loop may be gone, too
            asio::post(loop, [job, weak] {
                auto self = weak.lock();
                if (!self || !self->open()) return;
                self->sealing_ = false;
                if (auto again = parse_request(job->packet, 1); !again || !job->sealed) {
                    self->refuse(op_of(job->packet), tag_of(job->packet),
                                 again ? job->sealed.error() : again.error());
                } else {
                    self->with_memory(*again, std::move(job->memory));
                }
                if (self->open()) self->await_packets();
            });
        });
}

void Connection::with_memory(const Request& request, Guest memory) {
    tree::Exchange& exchange = around_.exchange;
    if (request.op == ControlOp::kSend) return enqueue_memory(request, std::move(memory));
    if (pools_.size() >= kMaxPools) return refuse(request, too_many("pools"));
    auto grant =
        exchange.open_pool(caller_, request.path, request.as<ControlPoolOpen>(), memory.release());
    if (!grant) return refuse(request, grant.error());
    pools_.insert(grant->pool.id);
    std::vector<Guest> ledger;
    ledger.push_back(own(std::move(grant->ledger)));
    answer(request, grant->pool, std::move(ledger));
}

void Connection::watch(const Request& request, std::vector<Guest>& fds) {
    tree::Exchange& exchange = around_.exchange;
    if (watches_.size() >= kMaxWatches) return refuse(request, too_many("watches"));
    const auto& wanted = request.as<ControlWatch>();
    Result<std::unique_ptr<tree::Watch>> made = Fault{EINVAL, "no such signal"};
    if (request.op == ControlOp::kEventFd) {
        if (fds[0].kind() != FdKind::kEventFd)
            return refuse(request, Fault{EINVAL, "the descriptor is not an eventfd"});
        made = exchange.watch(caller_, request.path, request.text, fds[0].release());
    } else if (wanted.signal > 0 && wanted.signal <= static_cast<std::uint32_t>(SIGRTMAX)) {
        made = exchange.watch(caller_, request.path, request.text, static_cast<int>(wanted.signal));
    }
    if (!made) return refuse(request, made.error());
    watches_.emplace(++last_watch_, std::move(*made));
    answer(request, ControlId{last_watch_});
}

void Connection::attach(const Request& request, std::vector<Guest>& fds) {
    ControlLazy wanted = request.as<ControlLazy>();
    const FdKind memory = wanted.mode == LazyMode::kWhole ? FdKind::kMemory : FdKind::kUserFault;
    if (fds[0].kind() != memory)
        return refuse(
            request,
            Fault{EINVAL,
                  "the first descriptor does not fit the mode: send a userfaultfd or a memfd"});
    if (fds[1].kind() != FdKind::kSocket || !is_unix_socket(fds[1].get()))
        return refuse(request, Fault{EINVAL, "the second descriptor is not a Unix socket"});
    auto producer = around_.exchange.lazy_producer(caller_, wanted);
    if (!producer) return refuse(request, producer.error());
    wanted.uid = caller_.subject.uid;
    wanted.pid = static_cast<std::uint32_t>(std::max(caller_.subject.pid, 0));
    // serve() takes both descriptors, even if it fails.
    if (!(*producer)->serve(wanted, fds[0].release(), fds[1].release()))
        return refuse(request,
                      Fault{ECONNRESET, "the producer is gone or has too many requests waiting"});
    answer(request, ControlId{wanted.payload_id});
}

// Replies at once unless the message must be written to disk.
void Connection::enqueue_memory(const Request& request, Guest memory) {
    if (pending_ >= kMaxPending)
        return refuse(
            request,
            Fault{
                EAGAIN,
                "this connection has too many messages waiting: read replies before sending more"});
    around_.exchange.send(caller_, request.path, request.as<ControlSend>(), request.extensions,
                          memory.release(), deferred_reply(request));
}

// A reply that may be given later, on any thread; it is posted to the loop.
tree::Exchange::Done Connection::deferred_reply(const Request& request) {
    ++pending_;
    Request plain = request;  // op and tag; the texts will be gone
    plain.path = plain.text = plain.target = {};
    plain.extensions = {};
    return [plain, &loop = around_.loop, weak = weak_from_this()](Result<tree::Sent> sent) {
        asio::dispatch(loop, [plain, weak, sent = std::move(sent)] {
            auto self = weak.lock();
            if (!self || !self->open()) return;
            --self->pending_;
            if (!sent) return self->refuse(plain, sent.error());
            self->answer(plain, ControlSent{sent->payload, sent->size});
        });
    };
}

void Connection::hand_off(const Request& request) {
    if (pending_ >= kMaxPending)
        return refuse(request, Fault{EAGAIN,
                                     "this connection has too many hand-offs waiting: read replies "
                                     "before sending more"});
    const auto& wanted = request.as<ControlHandoff>();
    around_.exchange.hand_off(caller_, request.path, request.text, request.target, wanted.send,
                              request.extensions, deferred_reply(request));
}

}  // namespace ipcfs::control
