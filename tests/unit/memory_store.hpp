// A store in memory: the model of what a store keeps, and the store of tests that need no disk. The
// caller may keep `Contents` and open another store with them. Everything is durable at once;
// completions are called on a thread of the store.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <store/waiting.hpp>

namespace ipcfs::store {

class MemoryStore final : public Store {
public:
    // What a MemoryStore keeps; one store at a time.
    struct Contents {
        struct Message {
            State state;
            std::vector<std::byte> head, content;
            Key origin;
            std::uint64_t payload = 0;
            bool hidden = false;  // erased, but somebody's origin
        };
        struct Channel {
            std::vector<std::byte> record;
            std::uint64_t last_sequence = 0;
            bool erased = false;  // hidden messages are still there
            std::map<std::uint64_t, Message> messages;
        };
        std::map<std::uint64_t, Channel> channels;
        std::map<std::uint64_t, Fd> payloads;  // memory files
        std::vector<std::uint64_t> requests;   // the last ones
        std::uint64_t generation = 0;
    };

    explicit MemoryStore(std::shared_ptr<Contents> contents = std::make_shared<Contents>());
    ~MemoryStore() override;

    Result<void> recover(Recovery& to) override;
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
    std::uint64_t first_free_payload() override;
    std::uint64_t generation() override;
    bool may_have_lost_marks() override { return false; }
    Health health() override;
    void close() override;

private:
    Contents::Message* find(Key key);
    std::size_t references(Key origin) const;
    bool refers(std::uint64_t payload) const;
    void remove(Key key);
    void run();

    std::mutex mutex_;  // a leaf: nothing is called under it
    std::shared_ptr<Contents> contents_;
    std::condition_variable wake_;
    Waiting due_;
    bool closed_ = false;
    Lsn lsn_ = 0;
    std::uint64_t puts_ = 0;
    std::thread thread_;
};

}  // namespace ipcfs::store
