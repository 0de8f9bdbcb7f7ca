// The store in memory. Any thread.
#include "memory_store.hpp"

#include <algorithm>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <base/thread.hpp>

namespace ipcfs::store {

namespace {

constexpr std::size_t kRememberedRequests = 1024;

std::vector<std::byte> copy(std::span<const std::byte> from) {
    return {from.begin(), from.end()};
}

}  // namespace

MemoryStore::MemoryStore(std::shared_ptr<Contents> contents) : contents_(std::move(contents)) {}

MemoryStore::~MemoryStore() {
    close();
}

Result<void> MemoryStore::recover(Recovery& to) {
    if (!thread_.joinable()) thread_ = start_thread("ipcfs-commit", [this] { run(); });
    // Told without the lock: nobody else is there yet.
    ++contents_->generation;
    const auto refers = [](const Contents::Channel& channel) {
        return std::any_of(channel.messages.begin(), channel.messages.end(),
                           [](const auto& each) { return each.second.origin.channel != 0; });
    };
    for (const bool second : {false, true}) {
        for (const auto& [id, channel] : contents_->channels) {
            if (channel.erased || refers(channel) != second) continue;
            to.channel(id, channel.record, channel.last_sequence);
            for (const auto& [sequence, message] : channel.messages) {
                if (message.hidden) continue;
                const auto* origin = find(message.origin);
                to.message({{id, sequence},
                            message.state,
                            message.head,
                            origin != nullptr ? origin->content : message.content,
                            message.origin,
                            message.payload});
            }
        }
    }
    for (const std::uint64_t id : contents_->requests) to.request(id);
    std::erase_if(contents_->payloads,
                  [this](const auto& each) { return !this->refers(each.first); });
    return {};
}

MemoryStore::Contents::Message* MemoryStore::find(Key key) {
    const auto channel = contents_->channels.find(key.channel);
    if (channel == contents_->channels.end()) return nullptr;
    const auto message = channel->second.messages.find(key.sequence);
    return message == channel->second.messages.end() ? nullptr : &message->second;
}

std::size_t MemoryStore::references(Key origin) const {
    std::size_t count = 0;
    for (const auto& [id, channel] : contents_->channels)
        for (const auto& [sequence, message] : channel.messages)
            if (message.origin == origin) ++count;
    return count;
}

bool MemoryStore::refers(std::uint64_t payload) const {
    for (const auto& [id, channel] : contents_->channels)
        for (const auto& [sequence, message] : channel.messages)
            if (message.payload == payload) return true;
    return false;
}

Result<Lsn> MemoryStore::put(std::span<const Put> together, std::uint64_t request) {
    const std::scoped_lock hold(mutex_);
    if (closed_) return Fault{EIO, "put: the store is closed"};
    std::set<Key> fresh;
    for (const Put& each : together) {
        const auto channel = contents_->channels.find(each.key.channel);
        if (channel == contents_->channels.end() || channel->second.erased)
            return Fault{ENOENT, "put: unknown channel"};
        if (find(each.key) != nullptr || !fresh.insert(each.key).second)
            return Fault{EEXIST, "put: the key is there"};
        if (each.origin.channel != 0 && find(each.origin) == nullptr &&
            !fresh.contains(each.origin))
            return Fault{ENOENT, "put: unknown origin"};
    }
    for (const Put& each : together) {
        auto& channel = contents_->channels[each.key.channel];
        channel.last_sequence = std::max(channel.last_sequence, each.key.sequence);
        channel.messages.emplace(each.key.sequence,
                                 Contents::Message{each.state, copy(each.head), copy(each.content),
                                                   each.origin, each.payload});
    }
    puts_ += together.size();
    if (request != 0) {
        auto& requests = contents_->requests;
        if (requests.size() == kRememberedRequests) requests.erase(requests.begin());
        requests.push_back(request);
    }
    return appended(++lsn_);
}

Result<Lsn> MemoryStore::move(Key key, const State& state) {
    const std::scoped_lock hold(mutex_);
    if (closed_) return Fault{EIO, "move: the store is closed"};
    auto* const message = find(key);
    if (message == nullptr || message->hidden) return Fault{ENOENT, "move: no such message"};
    message->state = state;
    return appended(++lsn_);
}

// Takes a message out; what it was the last reference to goes with it.
void MemoryStore::remove(Key key) {
    auto* const message = find(key);
    if (message == nullptr) return;
    if (references(key) != 0) {
        message->hidden = true;
        return;
    }
    const Key origin = message->origin;
    const std::uint64_t payload = message->payload;
    auto& channel = contents_->channels[key.channel];
    channel.messages.erase(key.sequence);
    if (channel.erased && channel.messages.empty()) contents_->channels.erase(key.channel);
    if (const auto* from = find(origin); from != nullptr && from->hidden) remove(origin);
    if (payload != 0 && !refers(payload)) contents_->payloads.erase(payload);
}

Result<Lsn> MemoryStore::erase(Key key) {
    const std::scoped_lock hold(mutex_);
    if (closed_) return Fault{EIO, "erase: the store is closed"};
    remove(key);
    return appended(++lsn_);
}

Result<Lsn> MemoryStore::put_channel(std::uint64_t id, std::span<const std::byte> record) {
    const std::scoped_lock hold(mutex_);
    if (closed_) return Fault{EIO, "put_channel: the store is closed"};
    auto& channel = contents_->channels[id];
    channel.record = copy(record);
    channel.erased = false;
    return appended(++lsn_);
}

Result<Lsn> MemoryStore::erase_channel(std::uint64_t id) {
    const std::scoped_lock hold(mutex_);
    if (closed_) return Fault{EIO, "erase_channel: the store is closed"};
    if (const auto channel = contents_->channels.find(id); channel != contents_->channels.end()) {
        channel->second.erased = true;
        channel->second.last_sequence = 0;
        std::vector<std::uint64_t> sequences;
        for (const auto& [sequence, message] : channel->second.messages)
            sequences.push_back(sequence);
        if (sequences.empty()) contents_->channels.erase(id);
        for (const std::uint64_t sequence : sequences) remove({id, sequence});
    }
    return appended(++lsn_);
}

void MemoryStore::when_durable(Lsn lsn, Completion& then) {
    {
        const std::scoped_lock hold(mutex_);
        due_.add(lsn, then);
    }
    wake_.notify_one();
}

void MemoryStore::run() {
    std::unique_lock hold(mutex_);
    for (;;) {
        wake_.wait(hold, [this] { return closed_ || !due_.empty(); });
        if (due_.empty()) return;
        Waiting now = std::exchange(due_, {});
        hold.unlock();
        now.call(0);
        hold.lock();
    }
}

Result<void> MemoryStore::save_payload(std::uint64_t id, int file, std::uint64_t offset,
                                       std::uint64_t size, bool) {
    Fd copy(::memfd_create("ipcfs-kept", MFD_CLOEXEC));
    if (!copy) return errno_fault("memfd_create");
    std::vector<std::byte> part(64 << 10);
    for (std::uint64_t at = 0; at < size;) {
        const auto want = std::min<std::uint64_t>(part.size(), size - at);
        const auto got = ::pread(file, part.data(), want, static_cast<off_t>(offset + at));
        if (got < 0) return errno_fault("read a payload");
        if (got == 0) return Fault{EIO, "a payload is shorter than it was said to be"};
        if (::write(copy.get(), part.data(), static_cast<std::size_t>(got)) != got)
            return errno_fault("write a payload");
        at += static_cast<std::uint64_t>(got);
    }
    const std::scoped_lock hold(mutex_);
    if (!contents_->payloads.emplace(id, std::move(copy)).second)
        return Fault{EEXIST, "a payload of that id is there"};
    return {};
}

Result<Fd> MemoryStore::open_payload(std::uint64_t id) {
    const std::scoped_lock hold(mutex_);
    const auto found = contents_->payloads.find(id);
    if (found == contents_->payloads.end()) return Fault{ENOENT, "no such payload"};
    const std::string path = "/proc/self/fd/" + std::to_string(found->second.get());
    Fd opened(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened) return errno_fault("open a payload");
    return opened;
}

void MemoryStore::drop_payload(std::uint64_t id) {
    const std::scoped_lock hold(mutex_);
    if (!refers(id)) contents_->payloads.erase(id);
}

std::uint64_t MemoryStore::first_free_payload() {
    const std::scoped_lock hold(mutex_);
    const auto& payloads = contents_->payloads;
    return payloads.empty() ? 1 : payloads.rbegin()->first + 1;
}

std::uint64_t MemoryStore::generation() {
    const std::scoped_lock hold(mutex_);
    return contents_->generation;
}

Health MemoryStore::health() {
    const std::scoped_lock hold(mutex_);
    Health health;
    health.puts = puts_;
    for (const auto& [id, channel] : contents_->channels)
        for (const auto& [sequence, message] : channel.messages)
            if (!message.hidden) ++health.messages;
    return health;
}

void MemoryStore::close() {
    {
        const std::scoped_lock hold(mutex_);
        closed_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

}  // namespace ipcfs::store
