// What recovery has read: the segments, which of them count and how far, and what is wrong with them.
// Used only by recovery (recover.cpp, chain.cpp, salvage.cpp). One thread.
#pragma once

#include <store/segment_store.hpp>

namespace ipcfs::store {

struct SegmentStore::Scan {
    struct File {
        std::uint32_t number = 0;
        std::unique_ptr<Region> region;
        SegmentHeader header;
        BeginBody begin;
        bool used = false;        // it begins with a valid record
        bool chain = false;       // and belongs to the journal
        bool dirty = false;       // does not, but has valid records
        std::uint32_t end = 0;    // of the valid records that belong to the journal
        std::uint32_t valid = 0;  // where its valid records end, at `end` at most if that is known
        std::uint32_t needs = 0;  // the oldest segment that they say is needed
        bool sealed = false;      // the last of them says that another segment follows

        Bytes bytes() const { return region->bytes(); }
        std::string name() const { return "segment " + std::to_string(number); }
        bool has_begun() const { return used && number == header.number; }
        void validate();
        void find_salt();
    };
    std::string damage;                  // empty: none
    std::vector<File> files;             // in order of their number
    std::vector<std::string> leftovers;  // names of files to remove
    std::vector<Request> requests;
    std::uint32_t version = kFormatVersion;  // or another, if one was found
    bool torn = false;                       // there are valid records behind the end

    void note_damage(std::string what) {
        if (damage.empty()) damage = std::move(what);
    }
    std::vector<File*> chain();
    void link_back();
    File* file(std::uint32_t number) {
        for (auto& each : files)
            if (each.number == number) return &each;
        return nullptr;
    }
};

}  // namespace ipcfs::store
