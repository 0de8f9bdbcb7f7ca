#include <cstring>
#include <new>
#include <sched.h>

#include <queue/message.hpp>

namespace ipcfs::queue {

bool Message::charge(access::Account& account) noexcept {
    auto one = access::Charge::take(account, access::Resource::kMessages, 1);
    auto bytes = access::Charge::take(account, access::Resource::kBytes, size());
    if (!one || !bytes) return false;
    charged_message = std::move(*one);
    charged_bytes = std::move(*bytes);
    return true;
}

MessagePool::~MessagePool() {
    for (Shelf& shelf : shelves_) {
        shelf.free.with([](Lists& lists) {
            for (Free& free : lists) destroy_all(free);
        });
    }
}

void MessagePool::destroy(Message* message) noexcept {
    message->~Message();
    ::operator delete(message);  // unsized: clang lacks the sized form
}

void MessagePool::destroy_all(Free& free) noexcept {
    while (free.head) destroy(std::exchange(free.head, free.head->next_free_));
}

MessagePool::Shelf& MessagePool::shelf(unsigned further) noexcept {
    return shelves_[(static_cast<unsigned>(::sched_getcpu()) + further) % kShelves];
}

Message* MessagePool::take(bool is_share) noexcept {
    const auto pop = [](Free& free) -> Message* {
        if (!free.head) return nullptr;
        --free.count;
        return std::exchange(free.head, free.head->next_free_);
    };
    Shelf& own = shelf(0);
    Message* message = own.free.with([&](Lists& lists) { return pop(lists[is_share]); });
    for (unsigned other = 1; !message && other < kShelves; ++other) {
        Free taken = shelf(other).free.with(
            [is_share](Lists& lists) { return std::exchange(lists[is_share], {}); });
        message = pop(taken);
        if (!taken.head) continue;
        own.free.with([&](Lists& lists) { std::swap(lists[is_share], taken); });
        destroy_all(taken);
    }
    if (!message) {
        void* memory = ::operator new(bytes_of(is_share), std::nothrow);
        if (!memory) return nullptr;
        message = new (memory) Message(is_share);
    }
    message->pool_ = this;
    message->next_free_ = nullptr;
    return message;
}

MessageRef MessagePool::make(std::span<const std::byte> extensions,
                             std::span<const std::byte> body) noexcept {
    MessageRef message(take(false));
    if (!message) return nullptr;
    std::size_t total = extensions.size() + body.size();
    std::byte* to = message->room();
    if (total > Message::kInline) {
        message->large_.reset(new (std::nothrow) std::byte[total]);
        if (!message->large_) return nullptr;
        to = message->large_.get();
    }
    if (!extensions.empty()) std::memcpy(to, extensions.data(), extensions.size());
    if (!body.empty()) std::memcpy(to + extensions.size(), body.data(), body.size());
    message->data_ = to;
    message->ext_size_ = static_cast<std::uint32_t>(extensions.size());
    message->body_size_ = body.size();
    return message;
}

MessageRef MessagePool::share(const MessageRef& origin) noexcept {
    MessageRef message(take(true));
    if (!message) return nullptr;
    message->origin_ = origin->origin_ ? origin->origin_ : origin;
    message->data_ = origin->data_;
    message->ext_size_ = origin->ext_size_;
    message->body_size_ = origin->body_size_;
    message->payload = origin->payload;
    message->envelope = origin->envelope;
    message->envelope.redelivered = false;
    message->envelope.dead = false;
    message->envelope.deliveries = 0;
    message->envelope.position = 0;
    return message;
}

void MessagePool::recycle(Message* message) noexcept {
    message->charged_message.reset();
    message->charged_bytes.reset();
    message->large_.reset();
    message->payload.reset();
    message->origin_.reset();  // may recycle the origin too, so hold no lock
    message->data_ = nullptr;
    message->ext_size_ = 0;
    message->body_size_ = 0;
    message->envelope = {};
    message->writer = nullptr;
    message->kept_channel = message->kept_sequence = 0;
    bool kept = shelf(0).free.with([&](Lists& lists) {
        Free& free = lists[message->is_share_];
        if (free.count >= keep_) return false;
        message->next_free_ = free.head;
        free.head = message;
        ++free.count;
        return true;
    });
    if (!kept) destroy(message);
}

}  // namespace ipcfs::queue
