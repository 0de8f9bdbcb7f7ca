// What recovery has read and not yet believed: the segments, which of them count and how far, and what
// is wrong. For the files of recovery alone. One thread.
#pragma once

#include <store/segment_store.hpp>

namespace ipcfs::store {

struct SegmentStore::Found {
    struct File {
        std::uint32_t number = 0;
        std::unique_ptr<Region> region;
        SegmentHeader header;
        BeginBody begin;
        bool used = false;        // it begins with a valid record
        bool chain = false;       // and counts
        bool dirty = false;       // does not count, but has records
        std::uint32_t end = 0;    // of what is valid and counts
        std::uint32_t valid = 0;  // where its valid records end, up to `end` if that is known
        std::uint32_t needs = 0;  // the oldest segment that they say is needed
        bool sealed = false;      // the last of them says that another segment follows

        Bytes bytes() const { return region->bytes(); }
        std::string name() const { return "segment " + std::to_string(number); }
        void scan();
        void find_salt();
    };
    std::string damage;                  // empty: none
    std::vector<File> files;             // in order of their number
    std::vector<std::string> leftovers;  // names of files that do not count
    std::vector<Request> requests;
    std::uint32_t version = kFormatVersion;  // or another that was found
    bool torn = false;                       // behind the end something looks like records

    void damaged(std::string what) {
        if (damage.empty()) damage = std::move(what);
    }
    std::vector<File*> chain();
    void link_back();
    const File* file(std::uint32_t number) const {
        for (const auto& each : files)
            if (each.number == number) return &each;
        return nullptr;
    }
};

}  // namespace ipcfs::store
