// Handing over memory: what a client does with descriptors, which no file can carry. A door that has
// them (the control socket) calls this; rights are looked up as open(2) would find them. Any thread;
// nothing waits: what takes long goes to a worker and answers by callback.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <payload/payload.hpp>

#include <access/subject.hpp>
#include <base/event_adder.hpp>
#include <base/executor.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

// Who is at the other end of a connection.
struct Caller {
    access::Subject subject;
    access::Identity identity;
};

// A message whose body is memory, as its sender describes it. Views: the caller keeps what they show.
struct MemoryMessage {
    std::string_view path;  // of the channel
    queue::Envelope envelope;
    std::span<const std::byte> extensions;
    std::uint64_t size = 0;  // bytes; of sealed memory also 0: whatever the file has
};

struct Sent {
    std::uint64_t payload = 0;
    std::uint64_t size = 0;
};
struct PoolGrant {
    std::uint64_t id = 0;
    payload::PoolShape shape;
    Fd memory;  // read-only; empty for the one who opened it
    Fd ledger;
};
struct Claimed {
    Fd memory;
    std::uint64_t size = 0;
};

// A watch at a channel, ended by its destruction.
class Watch {
public:
    Watch(ChannelPtr channel, std::shared_ptr<channel::EventListener> listener);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

private:
    const ChannelPtr channel_;
    const std::shared_ptr<channel::EventListener> listener_;
};

class Exchange {
public:
    Exchange(Tree& tree, payload::Store& store, Executor& worker);

    // A filled memfd as a message. EACCES, ENOENT, EPERM (seals), EMSGSIZE, EDQUOT, ENOSPC; EAGAIN
    // where a nonblocking write would say so; EINVAL for a size that is not the file's. `done` is called
    // once, on any thread, possibly before this returns: later where the channel is durable.
    using Done = std::function<void(Result<Sent>)>;
    void send(const Caller& caller, const MemoryMessage& message, Fd memory, Done done);

    // EPERM where the channel's `payloads` is not `pooled`.
    Result<PoolGrant> open_pool(const Caller& caller, std::string_view path,
                                const payload::PoolShape& shape, Fd memory);
    Result<PoolGrant> map_pool(const Caller& caller, std::uint64_t pool);
    Result<void> close_pool(const Caller& caller, std::uint64_t pool);
    // The read-only memory of a sealed payload, for those who may open payload/<id>.
    Result<Claimed> payload_memory(const Caller& caller, std::uint64_t payload);

    Result<Sent> offer_lazy(const Caller& caller, const MemoryMessage& message,
                            std::weak_ptr<payload::Producer> producer);
    // Whom to ask for a lazy payload. EACCES; ENOENT when it is gone; ECONNRESET when its producer is;
    // EINVAL for a length that is not its size in whole pages.
    Result<std::shared_ptr<payload::Producer>> lazy_producer(const Caller& caller,
                                                             const payload::LazyRange& wanted);
    // A producer's report of how much it served.
    void lazy_report(std::uint64_t faults, std::uint64_t pages) noexcept;

    // Events of a channel added to `counter` (an eventfd), or sent as a signal to the caller.
    Result<std::unique_ptr<Watch>> watch(const Caller& caller, std::string_view path,
                                         std::string_view filter, Fd counter);
    Result<std::unique_ptr<Watch>> watch(const Caller& caller, std::string_view path,
                                         std::string_view filter, int signal);

    // The region share/`name` of channel `path` becomes the body of `message`, at its channel.
    // `done` is called once, on any thread, possibly before this returns.
    void hand_off(const Caller& caller, std::string_view path, std::string_view name,
                  const MemoryMessage& message, Done done);
    Result<Claimed> claim(const Caller& caller, std::uint64_t payload);

    // The last connection of that process is closed: what it held is given back.
    void process_gone(pid_t pid) noexcept { store_.process_gone(pid); }

private:
    access::Account& account_of(const Caller& caller) const {
        return store_.ledger().account(caller.subject.uid);
    }
    Result<ChannelPtr> channel_for(const Caller& caller, std::string_view path, Kind file,
                                   unsigned want) const {
        return tree_.reach(path, file, want, caller.identity);
    }
    // The channel that a message goes to.
    Result<ChannelPtr> target(const Caller& caller, const MemoryMessage& message) const;
    bool may_read_queue(const Caller& caller, std::uint64_t channel) const;
    static Result<PoolGrant> grant(const payload::Pool& pool, Fd memory);
    Result<payload::PayloadPtr> find(std::uint64_t id, PayloadKind kind) const;
    Result<payload::PayloadPtr> adopt(channel::Endpoint& channel, const Caller& caller,
                                      std::uint64_t size, const Fd& memory);
    Result<queue::Batch> batch_of(const channel::Endpoint& channel, const Caller& caller,
                                  const MemoryMessage& message, payload::PayloadPtr payload) const;
    Result<Sent> enqueue(const ChannelPtr& channel, const Caller& caller,
                         const MemoryMessage& message, payload::PayloadPtr payload) const;
    Result<Sent> move_region(const channel::Endpoint& from, const std::string& name,
                             const ChannelPtr& to, const Caller& caller,
                             const MemoryMessage& message);

    Tree& tree_;
    payload::Store& store_;
    Executor& worker_;
    const std::shared_ptr<EventAdder> adder_ = std::make_shared<EventAdder>();
};

}  // namespace ipcfs::tree
