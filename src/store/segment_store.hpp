// The store on disk: a log of changes in segments, and an index of what is alive in it. Old segments are
// emptied by appending what is alive in them again, so that they can be used again. Two threads: the
// commit thread syncs the log when somebody waits (and shortly after the last change anyway) and
// calls those who waited; the cleaner makes segments ready, empties old ones, removes payloads. Callers
// only append, under one lock. docs/store.md says what is where after which death.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include <store/epoch.hpp>
#include <store/index.hpp>
#include <store/journal.hpp>
#include <store/payload_files.hpp>
#include <store/waiting.hpp>

#include <base/log.hpp>

namespace ipcfs::store {

constexpr std::size_t kKeptRequests = 1024;
// A store begins with small segments, which are read quickly, and makes larger ones as it grows.
constexpr std::uint32_t kSmallestSegment = 256U << 10;
constexpr std::uint32_t kLargestSegment = 16U << 20;

struct Options {
    std::string directory;                   // made with the first channel, mode 0700
    std::uint64_t max_bytes = 0;             // of all segments; 0: the disk's size
    std::uint32_t segment_bytes = 0;         // 0: as the size of the disk and the store suggest
    std::uint64_t first_generation = 1;      // what a new store calls its first
    Nanos flush_after = 100 * kMillisecond;  // a change is on disk after that, also if nobody waits
    // For tests: another boot of the machine, and another medium under the journal.
    std::string boot;
    std::function<Result<std::unique_ptr<Medium>>(const std::string& directory)> medium;
};

class SegmentStore final : public Store {
public:
    SegmentStore(Options options, Logger& log);
    ~SegmentStore() override;

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

    struct Scan;  // scan.hpp: what recovery has read
    // recover.cpp, chain.cpp, salvage.cpp
    bool has_files() const;
    Result<void> lock_directory();
    Result<void> start(Recovery* to);
    void undo_start();
    Result<void> make_fresh(const std::string& directory);
    Result<void> open_current(Scan& scan);
    void read_segments(Scan& scan);
    void find_chain(Scan& scan);
    void find_end(Scan& scan);
    void replay(Scan& scan, bool tolerant);
    void replay(const RecordView& record, std::uint32_t segment, Scan& scan, bool tolerant);
    Result<void> quarantine(Scan& scan);
    Result<std::uint64_t> write_salvaged(const std::string& directory, Scan& scan);
    Result<void> start_journal(Scan& scan);
    Recovered recovered(Key key, const Entry& entry);
    void report(Recovery& to, const Scan& scan);

    // segment_store.cpp
    Result<void> make_room(Lock& lock, const char* operation, std::size_t length, bool may_fail);
    Lsn append_small(RecordType type, std::uint64_t value, std::uint32_t count, Bytes body);
    void remember(std::uint64_t request);
    void touch();
    Result<void> gate(const char* operation) const;
    std::string path(const char* name) const { return options_.directory + "/current/" + name; }

    // commit.cpp
    void commit_loop();
    void commit(Lock& lock);
    void sync_failed(Lock& lock, const SegmentRef& broken, const Fault& fault);
    void reappend(const Journal::Lost& lost, const std::vector<Lsn>& without);
    void latch_failure(const std::string& why);
    void follow();
    void run_anywhere();
    void flush_overflow();

    // cleaner.cpp
    void clean_loop();
    Result<void> prepare(std::size_t spares);
    Result<void> add_spare(Lock& lock);
    bool wants_spare() const;
    std::uint32_t next_size() const;
    std::uint64_t keep() const;
    bool is_cheap(const Segment& segment) const;
    bool worth_cleaning() const;
    bool clean(Lock& lock);
    bool copy_live(const Segment& segment);
    bool copy_batch(const Segment& segment, std::span<const RecordView> batch);
    bool copy_metadata(const SegmentRef& segment);
    void discard_small_spares(std::uint32_t size);
    void recycle(Lock& lock, const SegmentRef& segment);
    bool wait_durable(Lock& lock, Lsn lsn);
    void complain(const Fault& fault);

    Options options_;
    Logger& log_;
    Fd directory_lock_;
    std::unique_ptr<Medium> medium_;
    std::unique_ptr<PayloadFiles> payloads_;
    std::optional<Epoch> epoch_;
    std::uint64_t generation_ = 0;
    std::uint64_t first_free_payload_ = 1;
    bool may_have_lost_marks_ = false;
    std::uint32_t segment_bytes_ = 0;  // the largest

    std::mutex opening_;  // taken before all others
    bool recovered_ = false;
    std::atomic<bool> opened_{false};  // there are files, and the threads run

    std::mutex preparing_;  // one segment at a time; taken before mutex_

    // Guards everything below. A leaf for callers; nothing is called, logged or waited for under it.
    mutable std::mutex mutex_;
    std::condition_variable commit_wake_, clean_wake_, durable_wake_;
    Journal journal_;
    Index index_;
    std::vector<SegmentRef> recyclable_;
    std::uint32_t next_number_ = 1;
    std::uint32_t wanted_size_ = 0;  // of a segment, for a long put
    struct Request {
        std::uint64_t id = 0;
        std::uint32_t segment = 0;  // that says so
    };
    std::deque<Request> requests_;  // the last kKeptRequests, oldest first

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
    Lsn wanted_ = 0;         // somebody inside waits for a sync up to here
    bool changed_ = false;   // since the last sync
    bool unmarked_ = false;  // no mark says how far the last sync went
    bool idle_ = false;      // the commit thread sleeps
    bool timed_ = false;     // and wakes by itself, after flush_after
    int commit_cpu_ = -1;    // that it is pinned to; -1: to none
    pid_t commit_thread_id_ = 0;
    std::vector<std::uint64_t> removable_payloads_;  // and that is on disk
    bool stopping_ = false;
    bool closed_ = true;
    bool ended_ = true;      // there is no commit thread
    bool cleaning_ = false;  // the cleaner lives
    bool no_space_ = false;  // for another segment
    bool stuck_ = false;     // the cleaner found no room
    unsigned failures_ = 0;  // of syncs, in a row
    Health health_;
    std::string trouble_;  // of the health's text

    std::thread commit_thread_, clean_thread_;
};

}  // namespace ipcfs::store
