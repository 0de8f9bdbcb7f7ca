// Large payloads beside the store: a file each, whose name is its id, its length and its checksum. It
// gets that name when it is whole. Thread-safe; all of it blocks but `known`.
#pragma once

#include <string>
#include <unordered_map>

#include <store/format.hpp>

#include <base/fd.hpp>
#include <base/guarded.hpp>
#include <base/result.hpp>

namespace ipcfs::store {

class PayloadFiles {
public:
    explicit PayloadFiles(std::string directory) : directory_(std::move(directory)) {}

    // Reads the directory; what is no payload, or half written, is removed.
    Result<void> load();
    Result<void> save(std::uint64_t id, int file, std::uint64_t offset, std::uint64_t size,
                      bool sync);
    Result<Fd> open(std::uint64_t id);
    void remove(std::uint64_t id) noexcept;
    // Whether its file is there with its length.
    bool whole(std::uint64_t id);
    std::vector<std::uint64_t> ids();
    // Gives the same files to another directory.
    Result<void> link_into(const std::string& directory);

private:
    struct Known {
        std::uint64_t size = 0;
        std::uint32_t crc = 0;
    };
    std::string path_of(std::uint64_t id, const Known& known) const;

    std::string directory_;
    Guarded<std::unordered_map<std::uint64_t, Known>> known_;
};

}  // namespace ipcfs::store
