// What recovery has read and not yet believed: the files of the journal, which of them count and how
// far, and what is wrong. For the files of recovery alone. One thread.
#pragma once

#include <store/lmdb_store.hpp>

namespace ipcfs::store {

struct LmdbStore::Found {
    struct File {
        std::uint32_t number = 0;
        std::unique_ptr<Region> region;
        SegmentHeader header;
        BeginBody begin;
        bool used = false;      // it begins with a valid record
        bool chain = false;     // and counts
        bool dirty = false;     // does not count, but has records
        std::uint32_t end = 0;  // of what is valid and counts

        Bytes bytes() const { return region->bytes(); }
    };
    std::string damage;                  // empty: none
    std::vector<File> files;             // in order of their number; younger than LMDB has
    std::vector<std::string> leftovers;  // names of files that do not count
    std::vector<std::uint64_t> requests;
    std::uint64_t checkpoint = 0;  // the highest that the journal knows
    bool torn = false;             // behind the end something looks like records
    bool newer = false;
    bool unreadable = false;  // LMDB's file

    void damaged(std::string what) {
        if (damage.empty()) damage = std::move(what);
    }
    // For a damaged journal: what its segments say of each other, as far as they can be read.
    void link_back() {
        File* later = nullptr;
        for (auto each = files.rbegin(); each != files.rend(); ++each) {
            each->chain = each->header.number == each->number &&
                          (later == nullptr || !later->used ||
                           later->begin.previous == each->number || !each->used);
            if (!each->chain) continue;
            each->end = later != nullptr && later->used && later->begin.previous == each->number
                            ? later->begin.end
                            : 0;
            later = &*each;
        }
    }
    const File* file(std::uint32_t number) const {
        for (const auto& each : files)
            if (each.number == number) return &each;
        return nullptr;
    }
};

}  // namespace ipcfs::store
