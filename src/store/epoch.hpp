// How often the store was opened, by which boot of the machine, and whether it was closed: two slots
// of a file that was allocated when the store was made, written in turn, so that it takes no room
// on a full disk. Also the version of all of it. Blocks; one thread.
#pragma once

#include <array>
#include <string>

#include <store/format.hpp>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::store {

struct EpochSlot {
    std::uint64_t magic = 0x4348435045534650;
    std::uint32_t version = kFormatVersion;
    std::uint32_t crc = 0;      // of this struct with 0 here
    std::uint64_t counter = 0;  // the higher one counts
    std::uint64_t generation = 0;
    std::array<char, 40> boot{};  // /proc/sys/kernel/random/boot_id
    std::uint64_t clean = 0;      // closed: the journal ends at `end`
    Lsn end = 0;
};

class Epoch {
public:
    static Result<void> make(const std::string& path);
    // EPROTO: another version wrote it.
    static Result<Epoch> open(const std::string& path);

    const EpochSlot& last() const { return slot_; }
    bool intact() const { return intact_; }  // both slots were readable
    bool readable() const { return readable_; }
    Result<void> write(EpochSlot next);  // counter, version and crc are filled in

private:
    std::string path_;
    Fd file_;
    EpochSlot slot_;
    bool intact_ = false;
    bool readable_ = false;
};

// EPROTO: what to say of a file of another version.
Fault other_version(const std::string& path, std::uint32_t version);

std::string boot_id();

}  // namespace ipcfs::store
