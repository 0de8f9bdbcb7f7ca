// Sending to a channel, as every file and door does it: what became of a push as an errno, and pushes
// that no request waits for. Any thread.
#pragma once

#include <functional>
#include <memory>

#include <channel/endpoint.hpp>
#include <queue/waiter.hpp>

namespace ipcfs::tree {

// 0 when it is queued; EAGAIN where it would wait.
int error_of(channel::Push push) noexcept;

// The same of a write or an open that waited; `cancelled` is what an interrupted one ends with.
int error_of(queue::Wake why, int cancelled, bool is_sync) noexcept;

// A push that no client's request waits for: it does not wait for room. `done` is called once with an
// errno, on any thread, possibly before this returns; by then the batch is queued or gone.
void push_detached(const std::shared_ptr<channel::Endpoint>& channel, queue::Batch batch,
                   std::function<void(int error)> done) noexcept;

}  // namespace ipcfs::tree
