// The store on disk: a journal that takes every change at once, and LMDB, which takes over what is still
// alive of a segment that has been filled, so that the segment can be used again. What is erased
// within its segment never reaches LMDB. Two threads: the commit thread syncs the journal when
// somebody waits (and shortly after the last change anyway) and calls those who waited; the
// checkpoint thread makes segments ready, moves to LMDB, removes payloads. Callers only append,
// under one lock. docs/store.md says what is where after which death.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include <store/epoch.hpp>
#include <store/index.hpp>
#include <store/journal.hpp>
#include <store/payload_files.hpp>
#include <store/table.hpp>
#include <store/waiting.hpp>

#include <base/log.hpp>

namespace ipcfs::store {

constexpr std::size_t kKeptRequests = 1024;

struct Options {
    std::string directory;                   // made with the first channel, mode 0700
    std::uint64_t max_bytes = 0;             // of journal and LMDB together; 0: the disk's size
    std::uint32_t segment_bytes = 0;         // 0: as the file system's size suggests
    std::uint64_t first_generation = 1;      // what a new store calls its first
    Nanos flush_after = 100 * kMillisecond;  // a change is on disk after that, also if nobody waits
    // For tests: another boot of the machine, and another medium under the journal.
    std::string boot;
    std::function<Result<std::unique_ptr<Medium>>(const std::string& directory)> medium;
};

class LmdbStore final : public Store {
public:
    LmdbStore(Options options, Logger& log);
    ~LmdbStore() override;

    Result<void> recover(Recovery& to) override;
    Result<void> open() override;
    Result<Lsn> put(std::span<const Put> together, std::uint64_t request) override;
    Result<Lsn> move(Key key, const State& state) override;
    Result<Lsn> erase(Key key) override;
    Result<Lsn> put_channel(std::uint64_t id, std::span<const std::byte> record) override;
    Result<Lsn> erase_channel(std::uint64_t id) override;
    void when_durable(Lsn lsn, Completion& then) override;
    Result<void> save_payload(std::uint64_t id, int file, std::uint64_t offset, std::uint64_t size,
                              bool sync) override;
    Result<Fd> open_payload(std::uint64_t id) override;
    void drop_payload(std::uint64_t id) override;
    std::uint64_t first_free_payload() override { return first_free_payload_; }
    std::uint64_t generation() override { return generation_; }
    bool may_have_lost_marks() override { return may_have_lost_marks_; }
    Health health() override;
    void close() override;

private:
    using Lock = std::unique_lock<std::mutex>;

    struct Found;  // found.hpp: what reading gives
    // recover.cpp, chain.cpp, salvage.cpp
    bool has_files() const;
    Result<void> lock_directory();
    Result<void> start(Recovery& to);
    void forget_start();
    Result<void> make_fresh(const std::string& directory);
    Result<void> open_current(Found& found);
    void read_segments(Found& found);
    void find_chain(Found& found);
    void replay(Found& found, bool tolerant);
    void replay(const RecordView& record, const Segment& segment, Found& found, bool tolerant);
    Result<void> put_aside(Found& found);
    Result<void> start_journal(Found& found);
    void tell(Recovery& to, Found& found);

    // lmdb_store.cpp
    Result<void> make_room(Lock& lock, std::size_t length);
    Lsn append_small(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body);
    void remember(std::uint64_t request);
    void touch();
    Result<void> gate(const char* operation) const;
    std::string path(const char* name) const { return options_.directory + "/current/" + name; }

    // commit.cpp
    void commit_loop();
    void commit(Lock& lock);
    void sync_failed(Lock& lock, const SegmentRef& broken, const Fault& fault);
    void append_again(const Journal::Lost& lost, const std::vector<Lsn>& without);
    void give_up(const std::string& why);
    void flush_overflow();

    // checkpoint.cpp
    void checkpoint_loop();
    Result<void> prepare();  // one more spare segment
    bool wants_spare() const;
    struct Work;
    bool checkpoint(Work& work);
    Result<void> apply(Work& work);
    Result<void> apply_part(Work& work, bool all, bool& done);
    void recycle(const SegmentRef& segment);
    bool wait_durable(Lsn lsn);
    void complain(const Fault& fault);

    Options options_;
    Logger& log_;
    Fd directory_lock_;
    std::unique_ptr<Medium> medium_;
    std::unique_ptr<Table> table_;  // recovery, then the checkpoint thread
    std::unique_ptr<PayloadFiles> payloads_;
    std::optional<Epoch> epoch_;
    std::uint64_t generation_ = 0;
    std::uint64_t first_free_payload_ = 1;
    bool may_have_lost_marks_ = false;
    std::uint32_t segment_bytes_ = 0;
    std::uint64_t table_reserve_ = 0;  // of disk, for erasing in LMDB

    std::mutex opening_;  // taken before all others
    bool recovered_ = false;
    std::atomic<bool> opened_{false};  // there are files, and the threads run

    std::mutex preparing_;  // one segment at a time; taken before mutex_

    // Guards everything below. A leaf for callers; nothing is called, logged or waited for under it.
    mutable std::mutex mutex_;
    std::condition_variable commit_wake_, checkpoint_wake_, durable_wake_;
    Journal journal_;
    Index index_;
    std::vector<SegmentRef> recyclable_;
    std::uint32_t next_number_ = 1;
    std::vector<std::uint64_t> requests_;  // a ring
    std::size_t next_request_ = 0;

    struct Overflow {  // must not fail, and has no room yet
        RecordType type;
        std::uint64_t value;
        std::vector<std::byte> body;
    };
    std::vector<Overflow> overflow_;

    Waiting waiting_;  // for a sync
    Waiting due_;      // for the commit thread's time
    Waiting victims_;  // of a failed sync: told when what replaces it is on disk
    struct Replaced {
        Lsn from, to;  // (from, to] was not synced and has been appended again
        Lsn end;       // before this
    };
    std::vector<Replaced> replaced_;
    Lsn durable_ = 0;
    Lsn wanted_ = 0;                                 // somebody inside waits for a sync up to here
    bool changed_ = false;                           // since the last mark
    bool idle_ = false;                              // the commit thread sleeps
    std::vector<std::uint64_t> removable_payloads_;  // and that is on disk
    bool stopping_ = false;
    bool closed_ = true;
    bool ended_ = true;           // there is no commit thread
    bool checkpointing_ = false;  // the checkpoint thread lives
    bool no_space_ = false;       // for another segment
    bool stuck_ = false;          // the last checkpoint found no room
    unsigned failures_ = 0;       // of syncs, in a row
    Health health_;
    std::string trouble_;  // of the health's text

    std::thread commit_thread_, checkpoint_thread_;
};

}  // namespace ipcfs::store
