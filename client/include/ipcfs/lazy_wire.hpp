// The protocol between producer and receiver of a lazy payload: fixed-size packets, both ways, on a
// SOCK_SEQPACKET socket that the receiver makes and sends with kLazyAttach. Either side ends the
// service by closing the socket, or by exiting. An ABI. Plain structs.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ipcfs::detail {

enum class LazyWord : std::uint32_t {
    kServing = 1,  // producer: serves the range or memfd from now on
    kWhole = 2,    // producer: the memfd is full
    kFetch = 3,    // receiver: send `length` bytes at `offset`; kFaults only
    kFetched = 4,  // producer: the kFetch with that tag is done, or failed with `error`
};

struct LazyPacket {
    LazyWord word = LazyWord::kServing;
    std::int32_t error = 0;  // an errno
    std::uint64_t tag = 0;   // kFetch: chosen by the receiver
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
};

// A producer drops a receiver with more unanswered requests than this.
inline constexpr std::size_t kMaxLazyFetches = 1024;

static_assert(sizeof(LazyPacket) == 32 && std::is_trivially_copyable_v<LazyPacket>);

}  // namespace ipcfs::detail
