// Reads LMDB's file without LMDB: whether every page of it is what it has to be. LMDB itself has no
// checksums, and believes what it reads. Each page has to be in exactly one place (a tree, the list of
// free pages), each key in order, each count right, each value good by its checksum. Follows the
// format of LMDB 0.9 (mdb.c: MDB_page, MDB_node, MDB_meta) for 64-bit little-endian machines.
#pragma once

#include <functional>
#include <string>

#include <store/format.hpp>

namespace ipcfs::store {

struct Verdict {
    std::string wrong;     // empty: nothing
    bool crashed = false;  // reading it was not possible at all
};

// In a forked child, so that what cannot be read (an error of the disk is a signal) is a verdict, too.
Verdict verify_in_child(const std::string& file);
// In this process; empty: nothing is wrong.
std::string verify(const std::string& file);

// The file mapped, and what is good in it: as far as the trees can be followed.
class Salvage {
public:
    explicit Salvage(const std::string& file);
    Salvage(const Salvage&) = delete;
    Salvage& operator=(const Salvage&) = delete;
    ~Salvage();
    // ChannelBody with its record, or a message; without the checksum. Valid as long as this.
    void for_each(const std::function<void(Bytes value, bool is_channel)>& use) const;

private:
    Bytes bytes_;
};

}  // namespace ipcfs::store
