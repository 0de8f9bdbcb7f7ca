// The store of durable channels, without channels or a daemon: what its journal and its recovery
// take. One thread, besides the store's own.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "senders.hpp"

namespace ipcfs::bench {

class StoreUnderTest {
public:
    // Opens or makes it; what it holds is counted.
    explicit StoreUnderTest(const std::string& directory);
    ~StoreUnderTest();

    // Each puts, and where `waits` is awaits the disk, under a channel of its own.
    std::unique_ptr<Sender> sender(bool waits);
    // `count` puts wait for the disk at any time, each followed by the next as soon as it is told: what
    // a daemon does, which has no thread that waits. As rate_of_threads().
    Figures rate_of_waiting(unsigned count, std::span<const std::byte> body, std::int64_t lasting);
    // Syncs of the journal until now.
    std::uint64_t syncs();
    // Erases all channels and makes new ones of the same ids.
    void empty();
    // That many messages of one channel, and waits until they are on disk.
    void fill(unsigned count, std::span<const std::byte> body);
    std::uint64_t recovered() const;

    // What emptying segments takes: `count` puts, of which `percent` stay until `kept` have stayed, and
    // from then on push out any other; the rest are erased 1,000 puts later, as a queue does.
    struct Cleaning {
        double written = 0;  // bytes for each byte put
        double disk = 0;     // bytes of segments for each byte alive, at the end
    };
    Cleaning clean(unsigned count, unsigned percent, unsigned kept,
                   std::span<const std::byte> body);

private:
    struct Parts;  // its headers and the client's do not go together
    const std::unique_ptr<Parts> parts_;
};

}  // namespace ipcfs::bench
