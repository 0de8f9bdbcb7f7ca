// Which opens of one node can coexist. A client's kernel answers EIO to an open that does not fit the existing ones
// (measured, Linux 6.18):
//   - backed opens (passthrough) share one backing id, registered once;
//   - cached opens (page cache) and backed ones do not mix;
//   - a plain open (direct I/O) may come before backed ones, but not after them.
// So the first open of a node decides, and later ones follow until all are released. `put` gives every open a memory
// of its own, so only one at a time can be backed. Another one is answered ESTALE; the kernel then looks the name up
// again and gets `put` under another node id, whose opens are plain.
// Owned by Door. Any thread.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include <base/guarded.hpp>
#include <fuse/session.hpp>
#include <tree/file_kind.hpp>
#include <tree/open_file.hpp>

namespace ipcfs::fuse {

class Backings {
    class Node;

public:
    // Keeps a node's decision. The last one ends the backing, so release it before the memory.
    using Use = std::shared_ptr<Node>;
    struct OpenAnswer {
        std::uint32_t flags = 0;  // for the answer to OPEN
        std::int32_t backing = 0;
        // All opens read from this file, since the kernel shows pages that one open has read to the others.
        std::shared_ptr<tree::OpenFile> source;
        Use use;
    };

    // For an open of `put` by thread `tid`, before anything is made for it. Null if another open is backed; then
    // the caller answers ESTALE.
    Use claim(Session& session, tree::NodeId put, pid_t tid);
    // Whether a look-up of `put` by thread `tid` must return the other node id.
    bool aside(tree::NodeId put, pid_t tid);
    // Thread `tid` has opened the other node.
    void settled(pid_t tid);

    // How to answer an open of `node` with `file`; `claimed` is the result of claim(), if called. Calls
    // OpenFile::backed() if the open is backed.
    OpenAnswer open(Session& session, tree::NodeId node,
                    const std::shared_ptr<tree::OpenFile>& file, const tree::Traits& traits,
                    Use claimed);

    // In a successor: an open that its predecessor answered with `flags` and `backing`.
    Use restore(Session& session, tree::NodeId node, const std::shared_ptr<tree::OpenFile>& file,
                std::uint32_t flags, std::int32_t backing);

private:
    using Nodes = std::unordered_map<std::uint64_t, std::weak_ptr<Node>>;
    struct Refusal {
        pid_t tid;
        Nanos when;
    };
    static constexpr Nanos kRetryWithin = kSecond;

    // The node, made if it is not open. Null with `if_free` if it is.
    Use find(Session& session, tree::NodeId node, bool if_free);
    void forget(std::uint64_t raw) noexcept;

    Guarded<Nodes> nodes_;
    Guarded<std::vector<Refusal>> refusals_;  // oldest first
};

}  // namespace ipcfs::fuse
