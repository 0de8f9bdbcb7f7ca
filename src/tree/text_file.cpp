// Text snapshots. Any thread.
#include <algorithm>
#include <poll.h>

#include <tree/text_file.hpp>

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
            text_ = std::make_shared<const std::string>(make_());
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
    std::string_view text(reinterpret_cast<const char*>(request.data.data()), request.data.size());
    // These may take long: a region's mappings, names in the kernel's cache, the store's first files.
    constexpr auto kNone = std::string_view::npos;
    if (worker_ && take_ &&
        (text.find("revoke") != kNone || text.find("type") != kNone ||
         text.find("durable") != kNone)) {
        std::scoped_lock hold(mutex_);
        pending_.push_back({std::string(text), request.subject});
        return Outcome::kWait;
    }
    error = take_ ? take_(text, request.subject) : EACCES;
    std::scoped_lock hold(mutex_);
    written_ = true;
    return Outcome::kDone;
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
    worker_->add([this, &operation, pending = std::move(pending)] {
        operation.finish_with(take_(pending.text, pending.subject));
    });
}

unsigned TextFile::poll(std::unique_ptr<channel::PollTicket>) noexcept {
    return POLLIN | (take_ ? POLLOUT : 0U);
}

}  // namespace ipcfs::tree
