// Text snapshots. Any thread.
#include <algorithm>
#include <poll.h>

#include <tree/text_file.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

Outcome TextFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    std::shared_ptr<const std::string> text;
    {
        std::scoped_lock hold(mutex_);
        if (torn_ && request.offset != 0) {
            to.error = EIO;
            return Outcome::kDone;
        }
        torn_ = false;
        if (!text_ || (written_ && request.offset == 0)) {
            text_ = std::make_shared<const std::string>(style_.make(tree_, channel_));
            written_ = false;
        }
        text = text_;
    }
    if (request.offset < text->size()) {
        auto all = std::as_bytes(std::span(*text));
        std::size_t from = request.offset;
        to.parts[0] = all.subspan(from, std::min(request.size, all.size() - from));
    }
    to.text = std::move(text);
    return Outcome::kDone;
}

Outcome TextFile::try_write(const WriteRequest& request, queue::Batch&, int& error) noexcept {
    const std::string_view text = request.text();
    if (style_.is_slow && style_.is_slow(text)) {
        std::scoped_lock hold(mutex_);
        pending_.push_back({std::string(text), request.subject});
        return Outcome::kWait;
    }
    error = style_.take ? take(text, request.subject) : EACCES;
    std::scoped_lock hold(mutex_);
    written_ = true;
    return Outcome::kDone;
}

int TextFile::take(std::string_view text, const access::Subject& by) {
    auto done = style_.take(tree_, channel_, text, by);
    return done ? 0 : done.error().code;
}

void TextFile::start_write(WriteOperation& operation) noexcept {
    Text pending;
    {
        std::scoped_lock hold(mutex_);
        pending = std::move(pending_.front());
        pending_.pop_front();
        written_ = true;
    }
    // The operation keeps itself and this file until it is finished.
    const uid_t uid = pending.subject.uid;
    tree_.worker().add(uid, [this, &operation, pending = std::move(pending)] {
        operation.finish_with(take(pending.text, pending.subject));
    });
}

unsigned TextFile::poll(std::unique_ptr<channel::PollTicket>) noexcept {
    return POLLIN | (style_.take ? POLLOUT : 0U);
}

}  // namespace ipcfs::tree
