// A connection's transport and its end; operations.cpp performs the requests. On the loop, except
// Mailbox.
#include <array>
#include <cstring>
#include <exception>

#include <boost/asio/post.hpp>
#include <control/connection.hpp>

namespace ipcfs::control {
namespace asio = boost::asio;

Connection::Connection(ServerContext& around, Fd socket, Fd process, tree::Caller caller,
                       access::Charge charge)
    : around_(around),
      socket_(around.loop, socket.release()),
      process_(around.loop),
      caller_(std::move(caller)),
      charge_(std::move(charge)) {
    if (process) process_.assign(process.release());
}

void Connection::start() {
    await_packets();
    if (!process_.is_open()) return;
    // End the connection with its process: a forked child may still hold the socket open.
    process_.async_wait(asio::posix::descriptor_base::wait_read,
                        [weak = weak_from_this()](const boost::system::error_code& failed) {
                            auto self = weak.lock();
                            if (self && !failed) self->close({});
                        });
}

void Connection::close(std::string_view why) noexcept {
    if (!open()) return;
    if (!why.empty()) {
        around_.log.warn("control: connection of pid ", caller_.subject.pid, ", uid ",
                         caller_.subject.uid, " closed: ", why);
        ++around_.counters.aborted;
    }
    if (process_.is_open()) ::close(process_.release());
    const int socket = socket_.release();
    if (shut_down(socket)) {
        ::close(socket);
    } else {
        around_.executor->add(caller_.subject.uid, [socket] { ::close(socket); });
    }
    if (mailbox_) mailbox_->close();
    outgoing_.clear();
    gone_.clear();
    watches_.clear();
    for (std::uint64_t pool : pools_) {
        static_cast<void>(around_.exchange.close_pool(caller_, pool));
    }
    pools_.clear();
    around_.ended(*this);
}

void Connection::await_packets() {
    socket_.async_wait(asio::posix::descriptor_base::wait_read,
                       [weak = weak_from_this()](const boost::system::error_code& failed) {
                           auto self = weak.lock();
                           if (!self || failed || !self->open()) return;
                           try {
                               self->read_packets();
                           } catch (const std::exception& failure) {
                               self->close(failure.what());  // out of memory
                           }
                       });
}

// Handles at most kPacketsPerTurn packets, then lets other connections run.
void Connection::read_packets() {
    static thread_local std::array<std::byte, kMaxControlPacket> buffer;
    for (std::size_t count = 0; count < kPacketsPerTurn; ++count) {
        Received got = receive(socket_.native_handle(), buffer);
        std::vector<Guest> fds;
        fds.reserve(got.fds.size());
        bool foreign = false;
        for (Fd& fd : got.fds) {
            fds.emplace_back(std::move(fd), around_.executor, caller_.subject.uid);
            if (!fds.back().is_foreign()) continue;
            foreign = true;
            ++around_.counters.foreign;
        }
        if (got.what == Received::What::kNothing) break;
        if (got.what == Received::What::kEnd) return close({});
        ++around_.counters.packets;
        const auto packet = std::span<const std::byte>(buffer).first(got.size);
        if (got.truncated) {
            refuse(op_of(packet), tag_of(packet), Fault{EMSGSIZE, "control packet: too long"});
        } else if (got.lost_fds) {
            refuse(op_of(packet), tag_of(packet),
                   Fault{EINVAL,
                         "control packet: some descriptors were lost; the daemon may have too many "
                         "open files"});
        } else {
            handle_packet(packet, fds);
        }
        fds.clear();
        if (foreign && open() && around_.executor->is_overloaded(caller_.subject.uid)) {
            return close("this user's descriptors take too long to close");
        }
        if (!open() || sealing_) return;
    }
    await_packets();
}

void Connection::handle_packet(std::span<const std::byte> packet, std::vector<Guest>& fds) {
    auto request = parse_request(packet, fds.size());
    if (!request) return refuse(op_of(packet), tag_of(packet), request.error());
    perform(*request, packet, fds);
}

void Connection::enqueue(Packet packet, std::vector<Guest> fds) {
    if (!open()) return;
    if (outgoing_.size() >= kMaxOutgoing) return close("the client does not read its replies");
    outgoing_.push_back({std::move(packet), std::move(fds)});
    if (!writing_) flush();
}

void Connection::flush() {
    for (;;) {
        if (outgoing_.empty() && !gone_.empty()) {
            const ControlId id{gone_.front()};
            gone_.pop_front();
            outgoing_.push_back({make_packet(static_cast<std::uint16_t>(ControlOp::kLazyGone), 0, 0,
                                             std::as_bytes(std::span(&id, 1))),
                                 {}});
        }
        if (outgoing_.empty()) return;
        const Outgoing& first = outgoing_.front();
        std::array<int, kMaxControlFds> fds{};
        for (std::size_t i = 0; i < first.fds.size(); ++i) fds[i] = first.fds[i].get();
        const Sent sent = send(socket_.native_handle(), first.packet,
                               std::span<const int>(fds).first(first.fds.size()));
        if (sent == Sent::kFailed) {
            // ETOOMANYREFS: the kernel limits descriptors that are sent but not received.
            return close(errno == EPIPE || errno == ECONNRESET ? "" : std::strerror(errno));
        }
        if (sent == Sent::kFull) break;
        if (op_of(first.packet) == static_cast<std::uint16_t>(ControlOp::kLazyServe))
            mailbox_->served();
        outgoing_.pop_front();
    }
    writing_ = true;
    socket_.async_wait(asio::posix::descriptor_base::wait_write,
                       [weak = weak_from_this()](const boost::system::error_code& failed) {
                           auto self = weak.lock();
                           if (!self || failed || !self->open()) return;
                           self->writing_ = false;
                           self->flush();
                       });
}

void Connection::serve(const ControlLazy& wanted, Guest memory, Guest link) {
    std::vector<Guest> fds;
    fds.push_back(std::move(memory));
    fds.push_back(std::move(link));
    enqueue(make_packet(static_cast<std::uint16_t>(ControlOp::kLazyServe), 0, 0,
                        std::as_bytes(std::span(&wanted, 1))),
            std::move(fds));
}

void Connection::payload_gone(std::uint64_t payload) {
    if (!open()) return;
    gone_.push_back(payload);  // bounded by the payloads it offered
    if (!writing_) flush();
}

bool Mailbox::serve(const ControlLazy& wanted, Fd memory, Fd link) noexcept {
    try {
        Guest first(std::move(memory), executor_, wanted.uid);
        Guest second(std::move(link), executor_, wanted.uid);
        if (!is_open_) return false;
        if (++serves_ > kMaxServes) {
            --serves_;
            return false;
        }
        asio::post(loop_,
                   [to = to_, wanted, a = std::move(first), b = std::move(second)]() mutable {
                       if (auto connection = to.lock())
                           connection->serve(wanted, std::move(a), std::move(b));
                   });
        return true;
    } catch (const std::exception&) {
        return false;
    }
}

void Mailbox::gone(std::uint64_t payload) noexcept {
    if (!is_open_) return;
    try {
        asio::post(loop_, [to = to_, payload] {
            if (auto connection = to.lock()) connection->payload_gone(payload);
        });
    } catch (const std::exception&) {
        // Out of memory: the producer keeps the payload until its connection closes.
    }
}

}  // namespace ipcfs::control
