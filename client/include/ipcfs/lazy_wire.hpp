// What the producer and a receiver of a lazy payload say to each other on the socket that the
// receiver made (SOCK_SEQPACKET) and sent along with kLazyAttach: fixed packets, both ways. The end
// of either process, or of its will to go on, is the end of the socket. An ABI. Plain structs.
#pragma once

#include <cstdint>
#include <type_traits>

namespace ipcfs::detail {

enum class LazyWord : std::uint32_t {
    kServing = 1,  // producer: has taken the range or the memfd and answers from now on
    kWhole = 2,    // producer: the memfd is full
    kFetch = 3,    // receiver: put offset, length there; kFaults only
    kFetched = 4,  // producer: the kFetch with that tag is done, or failed with `error`
};

struct LazyPacket {
    LazyWord word = LazyWord::kServing;
    std::int32_t error = 0;  // an errno
    std::uint64_t tag = 0;   // kFetch: the receiver's choice
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
};

// More than this many requests of a receiver that are not answered: the producer drops it.
inline constexpr std::size_t kMaxLazyFetches = 1024;

static_assert(sizeof(LazyPacket) == 32 && std::is_trivially_copyable_v<LazyPacket>);

}  // namespace ipcfs::detail
