// Messages and their pool. Any thread.
#include <cstring>
#include <new>

#include <queue/message.hpp>

namespace ipcfs::queue {

void intrusive_ptr_add_ref(Message* message) noexcept {
    message->references_.fetch_add(1, std::memory_order_relaxed);
}

void intrusive_ptr_release(Message* message) noexcept {
    if (message->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        message->pool_->recycle(message);
    }
}

MessagePool::~MessagePool() {
    free_.with([](Free& free) {
        while (free.head) delete std::exchange(free.head, free.head->next_free_);
    });
}

MessageRef MessagePool::make(std::span<const std::byte> extensions,
                             std::span<const std::byte> body) noexcept {
    Message* message = free_.with([](Free& free) -> Message* {
        if (!free.head) return nullptr;
        --free.count;
        return std::exchange(free.head, free.head->next_free_);
    });
    if (!message) message = new (std::nothrow) Message;
    if (!message) return nullptr;
    message->pool_ = this;
    message->next_free_ = nullptr;
    MessageRef ref(message);
    std::size_t total = extensions.size() + body.size();
    std::byte* to = message->inline_;
    if (total > Message::kInline) {
        message->large_.reset(new (std::nothrow) std::byte[total]);
        if (!message->large_) return nullptr;
        to = message->large_.get();
    }
    if (!extensions.empty()) std::memcpy(to, extensions.data(), extensions.size());
    if (!body.empty()) std::memcpy(to + extensions.size(), body.data(), body.size());
    message->ext_size_ = static_cast<std::uint32_t>(extensions.size());
    message->body_size_ = body.size();
    return ref;
}

void MessagePool::recycle(Message* message) noexcept {
    message->charged_message.reset();
    message->charged_bytes.reset();
    message->large_.reset();
    message->payload.reset();
    message->ext_size_ = 0;
    message->body_size_ = 0;
    message->envelope = {};
    message->writer = nullptr;
    bool kept = free_.with([&](Free& free) {
        if (free.count >= keep_) return false;
        message->next_free_ = free.head;
        free.head = message;
        ++free.count;
        return true;
    });
    if (!kept) delete message;
}

}  // namespace ipcfs::queue
