// What the journal is written on: preallocated files that are mapped, in one directory. Behind an
// interface so that a test can take the power away between any two operations. What is written
// to a region is in the page cache at once; it is on disk after `sync`, a name after `sync_names`.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <store/format.hpp>

namespace ipcfs::store {

// A mapped file. Any thread may write to it; `sync` may run beside that.
class Region {
public:
    virtual ~Region() = default;
    virtual std::span<std::byte> bytes() noexcept = 0;
    virtual Result<void> sync() = 0;
};

class Medium {
public:
    virtual ~Medium() = default;
    // The names that are there.
    virtual Result<std::vector<std::string>> list() = 0;
    // A new file of `size` bytes whose blocks are all allocated. ENOSPC.
    virtual Result<std::unique_ptr<Region>> make(const std::string& name, std::size_t size) = 0;
    // All of it has been read when this returns: what the disk cannot give is EIO now, and not a
    // signal later. As long as the file is, which may be nothing.
    virtual Result<std::unique_ptr<Region>> open(const std::string& name) = 0;
    virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
    virtual Result<void> remove(const std::string& name) = 0;
    virtual Result<void> sync_names() = 0;
};

// A directory, which is made if it is not there.
Result<std::unique_ptr<Medium>> file_medium(const std::string& directory);

}  // namespace ipcfs::store
