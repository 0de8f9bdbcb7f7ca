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
#include <ipcfs/control.hpp>
#include <tree/tree.hpp>

namespace ipcfs::tree {

// Who is at the other end of a connection.
struct Caller {
    access::Subject subject;
    std::vector<gid_t> groups;  // supplementary
};

struct Sent {
    std::uint64_t payload = 0;
    std::uint64_t size = 0;
};
struct PoolGrant {
    ControlPool pool;
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
    virtual ~Watch() = default;
};

class Exchange {
public:
    Exchange(Tree& tree, payload::Store& store, Executor& worker);

    // A filled memfd as a message. EACCES, ENOENT, EPERM (seals), EMSGSIZE, EDQUOT, ENOSPC; EAGAIN
    // where a nonblocking write would say so; EINVAL for a size that is not the file's. `done` is called
    // once, on any thread, possibly before this returns: later where the channel is durable.
    using Done = std::function<void(Result<Sent>)>;
    void send(const Caller& caller, std::string_view path, const ControlSend& what,
              std::span<const std::byte> extensions, Fd memory, Done done);

    // EPERM where the channel's `payloads` is not `pooled`.
    Result<PoolGrant> open_pool(const Caller& caller, std::string_view path,
                                const ControlPoolOpen& shape, Fd memory);
    Result<PoolGrant> map_pool(const Caller& caller, std::uint64_t pool);
    Result<void> close_pool(const Caller& caller, std::uint64_t pool);
    // The read-only memory of a sealed payload, for those who may open payload/<id>.
    Result<Claimed> payload_memory(const Caller& caller, std::uint64_t payload);

    Result<Sent> offer_lazy(const Caller& caller, std::string_view path, const ControlSend& what,
                            std::span<const std::byte> extensions,
                            std::weak_ptr<payload::Producer> producer);
    // Whom to ask for a lazy payload. EACCES; ENOENT when it is gone; ECONNRESET when its producer is;
    // EINVAL for a length that is not its size in whole pages.
    Result<std::shared_ptr<payload::Producer>> lazy_producer(const Caller& caller,
                                                             const ControlLazy& wanted);
    // A producer's word on how much it served.
    void lazy_report(const ControlLazyReport& report) noexcept;

    // Events of a channel added to `counter` (an eventfd), or sent as a signal to the caller.
    Result<std::unique_ptr<Watch>> watch(const Caller& caller, std::string_view path,
                                         std::string_view filter, Fd counter);
    Result<std::unique_ptr<Watch>> watch(const Caller& caller, std::string_view path,
                                         std::string_view filter, int signal);

    // The region share/`name` of channel `path` becomes a message of type handoff at channel `target`.
    // `done` is called once, on any thread, possibly before this returns.
    void hand_off(const Caller& caller, std::string_view path, std::string_view name,
                  std::string_view target, const ControlSend& what,
                  std::span<const std::byte> extensions, Done done);
    Result<Claimed> claim(const Caller& caller, std::uint64_t payload);

    // The last connection of that process is closed: what it held is given back.
    void process_gone(pid_t pid) noexcept;

    // For what may take long or stick, such as closing a foreign descriptor.
    Executor& worker() noexcept { return worker_; }

private:
    Result<std::shared_ptr<channel::Endpoint>> channel_for(const Caller& caller,
                                                           std::string_view path, Kind file,
                                                           unsigned want) const;
    bool may(const Caller& caller, std::uint64_t channel, Kind file, unsigned want) const;
    Result<Sent> enqueue(const std::shared_ptr<channel::Endpoint>& channel, const Caller& caller,
                         const ControlSend& what, std::span<const std::byte> extensions,
                         payload::PayloadPtr payload);
    struct Ready {
        std::shared_ptr<channel::Endpoint> channel;
        queue::Batch batch;
        Sent sent;
    };
    Result<Ready> prepare(const Caller& caller, std::string_view path, const ControlSend& what,
                          std::span<const std::byte> extensions, Fd memory);
    Result<queue::Batch> batch_of(channel::Endpoint& channel, const Caller& caller,
                                  const ControlSend& what, std::span<const std::byte> extensions,
                                  payload::PayloadPtr payload);

    Tree& tree_;
    payload::Store& store_;
    Executor& worker_;
    const std::shared_ptr<EventAdder> adder_ = std::make_shared<EventAdder>();
};

}  // namespace ipcfs::tree
