// Messages as one run of bytes. Any thread.
#include <algorithm>
#include <iterator>
#include <poll.h>

#include <tree/stream_file.hpp>

namespace ipcfs::tree {

using channel::Take;
using queue::MessageRef;
using queue::Wake;

Result<std::shared_ptr<StreamFile>> StreamFile::open(std::shared_ptr<channel::Endpoint> channel,
                                                     OpenMode mode,
                                                     const access::Subject& subject) {
    const std::uint64_t since = channel->stream_since();
    auto entry = Entry::take(std::move(channel), mode, subject);
    if (!entry) return entry.error();
    return std::make_shared<StreamFile>(std::move(*entry), since);
}

StreamFile::StreamFile(Entry entry, std::uint64_t since)
    : SendingFile(std::move(entry), queue::Via::kQueueFile), view_{since, false} {}

StreamFile::~StreamFile() {
    // The last one first: each goes to the front.
    for (; !rest_.empty(); rest_.pop_back()) {
        Piece& piece = rest_.back();
        MessageRef message = std::move(piece.message);
        if (piece.from > 0) {
            MessageRef shorter = channel_->make_message({}, message->body().subspan(piece.from));
            if (!shorter) {
                channel_->note_error("stream: no memory for the rest that a reader left");
                continue;
            }
            shorter->envelope = message->envelope;
            shorter->charged_message = std::move(message->charged_message);
            shorter->charged_bytes = std::move(message->charged_bytes);
            message = std::move(shorter);
        }
        channel_->give_back(std::move(message));
    }
    channel_->forget(poll_slot_);
}

// ---- reading --------------------------------------------------------------------------------------

channel::StreamView StreamFile::view() const noexcept {
    std::scoped_lock hold(mutex_);
    return view_;
}

// Adds messages until there are `size` bytes, or no more at the moment.
Take StreamFile::gather(Pieces& pieces, std::size_t size) noexcept {
    const channel::StreamView now = view();
    std::size_t bytes = 0;
    for (const Piece& piece : pieces) bytes += piece.size();
    while (bytes < size) {
        MessageRef message;
        const Take take = channel_->try_take(message, UINT64_MAX, queue::Lane::kMain, &now);
        if (take != Take::kTaken) return pieces.empty() ? take : Take::kTaken;
        bytes += message->body().size();
        pieces.push_back({std::move(message), 0});
    }
    return Take::kTaken;
}

void StreamFile::keep(Pieces rest) noexcept {
    std::scoped_lock hold(mutex_);
    rest_.insert(rest_.begin(), std::make_move_iterator(rest.begin()),
                 std::make_move_iterator(rest.end()));
}

void StreamFile::deliver(Pieces pieces, std::size_t size, Delivery& to) noexcept {
    to.fresh = true;
    to.skipped = pieces.front().from;
    auto cut = [&size](const Piece& piece) {
        auto bytes = piece.message->body().subspan(piece.from, std::min(size, piece.size()));
        size -= bytes.size();
        return bytes;
    };
    to.message = pieces.front().message;
    if (pieces.size() == 1 || pieces.front().size() >= size) {
        to.parts[0] = cut(pieces.front());
    } else {
        std::string text;
        for (const Piece& piece : pieces) {
            if (size == 0) break;
            auto bytes = cut(piece);
            text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
            if (piece.message != to.message) to.more.push_back(piece.message);
        }
        to.text = std::make_shared<const std::string>(std::move(text));
        to.parts[0] = std::as_bytes(std::span(*to.text));
    }
    std::size_t taken = to.size();
    while (!pieces.empty() && taken >= pieces.front().size()) {
        taken -= pieces.front().size();
        pieces.pop_front();
    }
    if (!pieces.empty()) pieces.front().from += taken;
    keep(std::move(pieces));
    std::scoped_lock hold(mutex_);
    view_.has_read = true;
}

Outcome StreamFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    Pieces pieces;
    {
        std::scoped_lock hold(mutex_);
        pieces.swap(rest_);
    }
    const Take take = gather(pieces, request.size);
    if (take == Take::kTaken) {
        deliver(std::move(pieces), request.size, to);
        return Outcome::kDone;
    }
    if (take != Take::kEmpty) return Outcome::kDone;
    if (!request.nonblocking) return Outcome::kWait;
    to.error = EAGAIN;
    return Outcome::kDone;
}

// Bytes that did not reach the client stay for the next read.
void StreamFile::settle(Delivery& delivery, bool sent) noexcept {
    if (!delivery.fresh || sent) return;
    Pieces back;
    back.push_back({std::move(delivery.message), delivery.skipped});
    for (MessageRef& each : delivery.more) back.push_back({std::move(each), 0});
    std::scoped_lock hold(mutex_);
    if (!rest_.empty() && rest_.front().message == back.back().message) rest_.pop_front();
    rest_.insert(rest_.begin(), std::make_move_iterator(back.begin()),
                 std::make_move_iterator(back.end()));
}

void StreamFile::start_read(ReadOperation& operation) noexcept {
    operation.may_end = true;
    operation.view = view();
    channel_->take(operation);
}

void StreamFile::finish_read(ReadOperation& operation, Delivery& to) noexcept {
    to.error = operation.error();
    if (operation.why != Wake::kServed) return;
    Pieces pieces;
    pieces.push_back({std::move(operation.message), 0});
    (void)gather(pieces, operation.request().size);
    deliver(std::move(pieces), operation.request().size, to);
}

// ---- writing --------------------------------------------------------------------------------------

Outcome StreamFile::try_write(const WriteRequest& request, queue::Batch& pending,
                              int& error) noexcept {
    access::Account& account = account_of(request.subject);
    const std::size_t most = channel_->settings().max_message;
    error = 0;
    for (auto rest = request.data; !rest.empty() && !error;) {
        auto part = rest.first(std::min(rest.size(), most));
        rest = rest.subspan(part.size());
        error =
            MessageFile::add(channel_->make_message({}, part), request.subject, account, pending);
    }
    if (error || pending.count == 0) return Outcome::kDone;
    return push(pending, request.nonblocking, error);
}

// ---- polling --------------------------------------------------------------------------------------

unsigned StreamFile::poll(std::unique_ptr<channel::PollTicket> ticket) noexcept {
    const channel::StreamView now = view();
    unsigned ready = channel_->poll(poll_slot_, std::move(ticket), false, queue::Lane::kMain, &now);
    {
        std::scoped_lock hold(mutex_);
        if (!rest_.empty()) ready |= POLLIN;
    }
    return usable(ready);
}

}  // namespace ipcfs::tree
