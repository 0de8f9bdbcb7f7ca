// Directories: the names in one that the table of files does not fix, and what making, removing and
// renaming them means. One object a kind of directory, made by the tree, serves all directories of that
// kind; the table says which. Any thread.
//
// An operation that cannot be done at once answers kWait and has done nothing. The door then starts a
// NameOperation at the directory, and tries again when that has finished.
#pragma once

#include <functional>
#include <memory>
#include <string_view>

#include <base/result.hpp>
#include <channel/registry.hpp>
#include <tree/node.hpp>
#include <tree/operation.hpp>

namespace ipcfs::tree {

class Tree;
struct NewChannel;

class Directory;

// A result, a fault, or kWait.
template <class T>
class [[nodiscard]] Answer : public Result<T> {
public:
    using Result<T>::Result;
    Answer(Result<T> done) : Result<T>(std::move(done)) {}
    Answer(Outcome)
        : Result<T>(Fault{EAGAIN, "it has to be asked for elsewhere first"}), waits_(true) {}
    // Why another answer has no value.
    template <class Other>
    static Answer failed(const Answer<Other>& other) {
        return other.waits() ? Answer(Outcome::kWait) : Answer(other.error());
    }
    bool waits() const noexcept { return waits_; }

private:
    bool waits_ = false;
};

// Waits at a directory that answered kWait, for what it was asked for.
class NameOperation : public Operation<NameOperation, queue::Waiter, Directory> {
public:
    using Operation::Operation;

protected:
    // Tries again and replies, or replies with `error`.
    virtual void reply(int error) noexcept = 0;

private:
    friend Operation;
    void begin(Directory& directory) noexcept;
    void give_up(Directory& directory) noexcept;
    void complete() noexcept { reply(error_of_ending(false)); }
};

class Directory {
public:
    explicit Directory(Tree& tree) : tree_(tree) {}
    virtual ~Directory() = default;
    Directory(const Directory&) = delete;
    Directory& operator=(const Directory&) = delete;

    // The node of a name. ENOENT.
    virtual Answer<NodeId> find(NodeId, std::string_view) { return Fault{ENOENT, "lookup"}; }
    // mkdir(2), rmdir(2), unlink(2), rename(2). EPERM where the directory has no such names.
    virtual Answer<NodeId> make(NodeId, std::string_view, const NewChannel&) {
        return Fault{EPERM, "mkdir: no channels here"};
    }
    virtual Answer<void> remove(NodeId, std::string_view) {
        return Fault{EPERM, "rmdir: no channels here"};
    }
    virtual Answer<void> unlink(NodeId, std::string_view) {
        return Fault{EPERM, "unlink: only regions of share/"};
    }
    virtual Answer<void> rename(NodeId, std::string_view, NodeId to, std::string_view,
                                bool /*keep*/) {
        const int error = to.kind == Kind::kSubsDir ? EXDEV : EPERM;
        return Fault{error, "rename: not from here to there"};
    }
    // A new file. EPERM as above; does not wait.
    virtual Result<NodeId> create(NodeId, std::string_view, const NewChannel&) {
        return Fault{EPERM, "create: files are made in share/ only"};
    }
    // Names with a number above `after`, in order of their numbers, until `visit` returns false. It copies,
    // and calls nothing.
    using Visit = std::function<bool(std::uint64_t number, std::string_view name, NodeId node)>;
    virtual void list(NodeId, std::uint64_t /*after*/, const Visit&) const {}
    // Directories among them.
    virtual std::uint64_t count_directories(NodeId) const { return 0; }
    // Whether clients' kernels may cache the list.
    virtual bool may_be_cached() const noexcept { return true; }

    // For a NameOperation; see WaitingFile.
    virtual void start(NameOperation& operation) noexcept { operation.finish(); }
    virtual void cancel(NameOperation&, queue::Wake) noexcept {}
    virtual std::optional<access::Charge> charge_waiter() noexcept { return access::Charge(); }

    // Of the files in it whose ids are their own: by such an id. UINT64_MAX, false, ESTALE: it is gone.
    virtual std::uint64_t channel_of(std::uint64_t /*id*/) const { return UINT64_MAX; }
    virtual Result<void> describe(std::uint64_t /*id*/, NodeInfo&) const {
        return Fault{ESTALE, "no such file"};
    }
    virtual Result<void> resize(std::uint64_t /*id*/, std::uint64_t /*size*/) {
        return Fault{EINVAL, "truncate: it has no size"};
    }
    using Attributes = channel::Attributes;
    virtual bool read(std::uint64_t /*id*/, const std::function<void(const Attributes&)>&) const {
        return false;
    }
    virtual bool change(std::uint64_t /*id*/, const std::function<void(Attributes&)>&) {
        return false;
    }

protected:
    Tree& tree_;
};

inline void NameOperation::begin(Directory& directory) noexcept {
    directory.start(*this);
}
inline void NameOperation::give_up(Directory& directory) noexcept {
    directory.cancel(*this, queue::Wake::kInterrupted);
}

std::shared_ptr<Directory> make_fixed_directory(Tree& tree);  // only fixed names
std::shared_ptr<Directory> make_channel_directory(Tree& tree);
std::shared_ptr<Directory> make_subs_directory(Tree& tree);
std::shared_ptr<Directory> make_payload_directory(Tree& tree);
std::shared_ptr<Directory> make_share_directory(Tree& tree);

}  // namespace ipcfs::tree
