// How the opens of one node go together. A client's kernel answers EIO to an open that does not fit
// those that are there (measured, Linux 6.18):
//   - backed opens (passthrough) share one backing id, registered once;
//   - cached opens (page cache) and backed ones do not mix;
//   - a plain open (direct I/O) may be there before backed ones, and not come to them.
// So the first open of a node decides, and others follow until all are released. `put` gives every
// open a memory of its own: only one at a time can be backed. Another is answered ESTALE, upon which
// the kernel looks the name up again and is given `put` under another node id, where opens are plain.
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
    // A node that is open. The last one of a node to go ends its backing: let go before the memory is.
    using Use = std::shared_ptr<Node>;
    struct Way {
        std::uint32_t flags = 0;  // for the answer to OPEN
        std::int32_t backing = 0;
        // Whose content all opens show: what one of them has read, the kernel shows to others.
        std::shared_ptr<tree::OpenFile> source;
        Use use;
    };

    // For an open of `put` by thread `tid`, before anything is made for it. Null: another has it, and
    // this one is to be answered ESTALE.
    Use claim(Session& session, tree::NodeId put, pid_t tid);
    // Whether a look-up of `put` by thread `tid` is to find it aside.
    bool aside(tree::NodeId put, pid_t tid);
    // It got there.
    void settled(pid_t tid);

    // How to answer an open of `node` with `file`; `claimed` where claim() was asked. Where the way is
    // backed the file has been told so.
    Way open(Session& session, tree::NodeId node, const std::shared_ptr<tree::OpenFile>& file,
             const tree::Traits& traits, Use claimed);

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

    // The node, made where `if_free` or nobody has it.
    Use find(Session& session, tree::NodeId node, bool if_free);
    void forget(std::uint64_t raw) noexcept;

    Guarded<Nodes> nodes_;
    Guarded<std::vector<Refusal>> refusals_;  // oldest first
};

}  // namespace ipcfs::fuse
