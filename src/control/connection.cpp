// A connection's transport and its end; operations.cpp performs the requests. On the loop, except
// Mailbox.
#include <algorithm>
#include <array>
#include <cstring>
#include <exception>

#include <boost/asio/post.hpp>
#include <control/connection.hpp>

namespace ipcfs::control {
namespace asio = boost::asio;

Connection::Connection(ServerContext& context, Fd socket, Fd process, tree::Caller caller,
                       access::Charge charge)
    : context_(context),
      socket_(context.loop, socket.release()),
      process_(context.loop),
      caller_(std::move(caller)),
      charge_(std::move(charge)) {
    if (process) process_.assign(process.release());
}

void Connection::start() {
    when_readable(socket_, &Connection::read_packets);
    // End the connection with its process: a forked child may still hold the socket open.
    if (process_.is_open()) when_readable(process_, &Connection::process_ended);
}

void Connection::when_readable(asio::posix::stream_descriptor& descriptor,
                               void (Connection::*then)()) {
    descriptor.async_wait(asio::posix::descriptor_base::wait_read,
                          [weak = weak_from_this(), then](const boost::system::error_code& failed) {
                              auto self = weak.lock();
                              if (!self || failed || !self->open()) return;
                              try {
                                  (*self.*then)();
                              } catch (const std::exception& failure) {
                                  self->close(failure.what());  // out of memory
                              }
                          });
}

void Connection::close(std::string_view why) noexcept {
    if (!open()) return;
    if (!why.empty()) {
        context_.log.warn("control: connection of pid ", caller_.subject.pid, ", uid ",
                          caller_.subject.uid, " closed: ", why);
        ++context_.counters.aborted;
    }
    if (process_.is_open()) ::close(process_.release());
    context_.close(Fd(socket_.release()), caller_.subject.uid);
    if (mailbox_) mailbox_->close();
    outgoing_.clear();
    gone_.clear();
    watches_.clear();
    for (std::uint64_t pool : pools_) {
        static_cast<void>(context_.exchange.close_pool(caller_, pool));
    }
    pools_.clear();
    context_.ended(*this);
}

// Handles at most kPacketsPerTurn packets, then lets other connections run.
void Connection::read_packets() {
    static thread_local std::array<std::byte, kMaxControlPacket> buffer;
    for (std::size_t count = 0; count < kPacketsPerTurn; ++count) {
        Received got =
            receive(socket_.native_handle(), buffer, context_.executor, caller_.subject.uid);
        const auto foreign = std::ranges::count_if(got.fds, &ReceivedFd::is_foreign);
        context_.counters.foreign += static_cast<std::uint64_t>(foreign);
        if (got.what == Received::What::kNothing) break;
        if (got.what == Received::What::kEnd) return close({});
        const auto packet = std::span<const std::byte>(buffer).first(got.size);
        if (got.truncated) {
            refuse(reply_to(packet), Fault{EMSGSIZE, "control packet: too long"});
        } else if (got.lost_fds) {
            refuse(reply_to(packet),
                   Fault{EINVAL,
                         "control packet: some descriptors were lost; the daemon may have too many "
                         "open files"});
        } else {
            handle_packet(packet, got.fds);
        }
        got.fds.clear();
        if (foreign > 0 && open() && context_.executor->is_overloaded(caller_.subject.uid)) {
            return close("this user's descriptors take too long to close");
        }
        if (!open() || sealing_) return;
    }
    when_readable(socket_, &Connection::read_packets);
}

void Connection::enqueue(Packet packet, std::vector<ReceivedFd> fds) {
    if (!open()) return;
    if (outgoing_.size() >= kMaxOutgoing) return close("the client does not read its replies");
    outgoing_.push_back({std::move(packet), std::move(fds)});
    if (!writing_) flush();
}

void Connection::flush() {
    for (;;) {
        if (outgoing_.empty() && !gone_.empty()) {
            outgoing_.push_back({make_packet(ControlOp::kLazyGone, ControlId{gone_.front()}), {}});
            gone_.pop_front();
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
        if (reply_to(first.packet).op == static_cast<std::uint16_t>(ControlOp::kLazyServe))
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

void Connection::serve(const payload::LazyRange& wanted, std::vector<ReceivedFd> memory_and_link) {
    const ControlLazy lazy{.payload_id = wanted.payload,
                           .address = wanted.address,
                           .length = wanted.length,
                           .mode = wanted.is_whole ? LazyMode::kWhole : LazyMode::kFaults,
                           .uid = wanted.uid,
                           .pid = static_cast<std::uint32_t>(wanted.pid)};
    enqueue(make_packet(ControlOp::kLazyServe, lazy), std::move(memory_and_link));
}

void Connection::payload_gone(std::uint64_t payload) {
    if (!open()) return;
    gone_.push_back(payload);  // bounded by the payloads it offered
    if (!writing_) flush();
}

bool Mailbox::serve(const payload::LazyRange& wanted, Fd memory, Fd link) noexcept {
    try {
        std::vector<ReceivedFd> fds;
        fds.reserve(2);
        fds.emplace_back(std::move(memory), executor_, wanted.uid);
        fds.emplace_back(std::move(link), executor_, wanted.uid);
        if (!is_open_) return false;
        if (++serves_ > kMaxServes) {
            --serves_;
            return false;
        }
        asio::post(loop_, [to = to_, wanted, fds = std::move(fds)]() mutable {
            if (auto connection = to.lock()) connection->serve(wanted, std::move(fds));
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
