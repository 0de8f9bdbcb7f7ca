// page_map: maps the body of a received message, of any kind, into this process.
//
//     auto frame = ipcfs::page_map(*message);                            // read-only, shared pages
//     auto mine = ipcfs::page_map(*message, ipcfs::Access::copy_on_write);
//     auto lazy = ipcfs::page_map(*message, ipcfs::LazyMapOptions{});    // pages on first access
//
// Where a view suffices, use Message::map(); for read_write memory shared by processes, use a
// Region. Errors are values, and no signal handler is installed. Any thread; a forked child
// inherits Mappings, but no LazyRange.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include <ipcfs/connection.hpp>
#include <ipcfs/control.hpp>
#include <ipcfs/lazy_range.hpp>
#include <ipcfs/mapping.hpp>
#include <ipcfs/message.hpp>
#include <ipcfs/payload.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs {
namespace detail {

// A writable copy, for bodies without pages of their own, or whose pages the owner will reuse.
inline Expected<ipcfs::Mapping> map_copy(std::span<const std::byte> bytes) {
    if (bytes.empty()) return ipcfs::Mapping({}, Access::copy_on_write, nullptr);
    void* data =
        ::mmap(nullptr, bytes.size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return last_error("map");
    std::memcpy(data, bytes.data(), bytes.size());
    auto holder = std::make_shared<Mapping>(static_cast<std::byte*>(data), bytes.size());
    const std::span<std::byte> copy(holder->data(), holder->size());
    return ipcfs::Mapping(copy, Access::copy_on_write, std::move(holder));
}

// Wraps `bytes`, which `holder` keeps valid and nobody writes to.
template <class Holder>
inline ipcfs::Mapping map_held(std::span<const std::byte> bytes, Holder holder) {
    return {{const_cast<std::byte*>(bytes.data()), bytes.size()},
            Access::read_only,
            std::make_shared<const Holder>(std::move(holder))};
}

}  // namespace detail

// Maps a sealed or pooled payload. copy_on_write shares the pages of a sealed one until they are
// written to, and copies a pooled one. EACCES for read_write: payloads are immutable. ENOTSUP for
// kinds lazy (pass the message) and handoff (use Region::claim). Other errors as Payload::map().
inline Expected<Mapping> page_map(const Payload& payload, Access access = Access::read_only) {
    if (access == Access::read_write)
        return Error{EACCES, "map payload", "payloads are immutable; use a region instead"};
    if (access == Access::copy_on_write && payload.fd() >= 0 && payload.size() != 0) {
        if (!detail::has_size(payload.fd(), payload.size())) return Error{EPROTO, "map payload"};
        return Mapping::of(payload.fd(), static_cast<std::size_t>(payload.size()), access);
    }
    auto bytes = payload.map();
    if (!bytes) return std::move(bytes).error();
    if (access == Access::copy_on_write) return detail::map_copy(*bytes);
    return detail::map_held(*bytes, payload);
}

// Maps a lazy payload page by page on first access; see LazyRange. Map it before this process
// receives the channel's next message, since afterwards the producer cannot be reached. Other kinds
// are mapped normally, and the range says that it fell back. EINVAL: read_write; EACCES: no
// permission to read the channel; ENOENT: too late; ECONNRESET: the producer is gone; ETIMEDOUT: it
// does not answer.
inline Expected<LazyRange> page_map(const Message& message, const LazyMapOptions& options);

// Maps the body of any message. Fetches a lazy one completely, so that later accesses cannot fail.
inline Expected<Mapping> page_map(const Message& message, Access access = Access::read_only) {
    if (message.has_payload() && message.payload().kind() != PayloadKind::kLazy)
        return page_map(message.payload(), access);
    if (access == Access::read_write)
        return Error{EACCES, "map message", "messages are immutable; use a region instead"};
    if (!message.has_payload()) {
        if (access == Access::copy_on_write) return detail::map_copy(message.body());
        return detail::map_held(message.body(), message);
    }
    LazyMapOptions options;
    options.access = access;
    auto range = page_map(message, options);
    if (!range) return std::move(range).error();
    auto all = range->fetch(0, range->size());
    if (!all) return std::move(all).error();
    return Mapping({const_cast<std::byte*>(all->data()), all->size()}, access,
                   std::make_shared<const LazyRange>(std::move(range).value()));
}

inline Expected<LazyRange> page_map(const Message& message, const LazyMapOptions& options) {
    if (!message.has_payload() || message.payload().kind() != PayloadKind::kLazy) {
        auto mapped = page_map(message, options.access);
        if (!mapped) return std::move(mapped).error();
        return LazyRange(std::move(mapped).value(), "the message is not lazy");
    }
    const Payload& payload = message.payload();
    const bool trusted = message.sender_uid() == 0 || message.sender_uid() == ::geteuid();
    return LazyRange::map(
        payload.id(), payload.size(), trusted, options,
        [&](const ControlLazy& request, std::span<const int> fds) -> Expected<void> {
            auto reply = detail::Connection::request(payload.mount(), ControlOp::kLazyAttach,
                                                     request, {}, fds);
            if (!reply) return std::move(reply).error();
            return {};
        });
}

}  // namespace ipcfs
