// The messages that outlive their segment of the journal, in LMDB: one environment, a sub-database a
// channel, and in each transaction how far the journal is contained in it. One thread at a time;
// all of it blocks. Values carry checksums; how they are checked is in walk.hpp.
#pragma once

#include <lmdb.h>
#include <memory>
#include <string>
#include <unordered_map>

#include <store/format.hpp>

namespace ipcfs::store {

// Values are their checksum, 4 bytes of zero, and this or a message.
struct ValueHeader {
    std::uint32_t crc = 0;  // of what follows
    std::uint32_t reserved = 0;
};
struct ChannelBody {
    std::uint64_t id = 0, last_sequence = 0;
    std::uint32_t erased = 0;
    std::uint32_t length = 0;  // of the record, which follows
};
struct TableState {
    std::uint64_t version = kFormatVersion;
    std::uint64_t number = 0;       // of the checkpoint
    std::uint64_t transaction = 0;  // LMDB's, the one that wrote this
    Lsn applied = 0;                // the journal up to here is contained
};

constexpr std::string_view kStateTable = "state";        // key 0: TableState; 1: requests
constexpr std::string_view kChannelsTable = "channels";  // by id: ChannelBody
std::string messages_table(std::uint64_t channel);       // by sequence: a message
// The channel of such a name; 0: it is not one.
std::uint64_t channel_of_table(std::string_view name);

// The value without its checksum; empty if that is wrong.
std::optional<Bytes> checked_value(Bytes value);

class Table {
public:
    // Makes it if it is not there. A fault has what LMDB says as its text.
    static Result<std::unique_ptr<Table>> open(const std::string& directory);
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;
    ~Table();

    const TableState& state() const { return state_; }
    std::uint64_t bytes() const;  // of the file

    // What is there, for recovery: `view` may be called between `begin_view` and `end_view`.
    class Visitor {
    public:
        virtual ~Visitor() = default;
        virtual void channel(const ChannelBody& body, Bytes record) = 0;
        virtual void message(const MessageView& message) = 0;
        virtual void request(std::uint64_t id) = 0;
    };
    Result<void> begin_view(Visitor& to);
    std::optional<MessageView> view(Key key);
    void end_view();

    // One transaction: begin, changes, commit. After a fault, abort; if that says true the map was
    // too small, is larger now, and the same may work.
    Result<void> begin();
    Result<void> put(const MessageHeader& header, Bytes head, Bytes content);
    Result<void> set_state(Key key, const StateBody& state);
    Result<void> erase(Key key);
    Result<void> drop(std::uint64_t channel);
    Result<void> put_channel(const ChannelBody& body, Bytes record);
    Result<void> put_requests(std::span<const std::uint64_t> requests);
    Result<void> commit(Lsn applied);
    bool abort();

    // Makes sure of disk space for `pages` more, beside `reserve` bytes that erasing may use.
    // ENOSPC: there is none, and there are not so many free pages inside either.
    Result<void> secure(std::uint64_t pages, std::uint64_t reserve);

private:
    Table(std::string directory, MDB_env* env) : directory_(std::move(directory)), env_(env) {}
    Fault fault(int code, const char* what);
    Result<void> start();
    // The handle of a sub-database in the present transaction; 0: it is not there.
    Result<MDB_dbi> handle(const std::string& name, bool make);
    Result<void> write(MDB_dbi table, std::uint64_t key, Bytes fixed, Bytes first, Bytes second);
    Result<std::uint64_t> free_pages();

    std::string directory_;
    MDB_env* env_;
    MDB_txn* txn_ = nullptr;
    std::unordered_map<std::string, MDB_dbi> handles_;
    std::vector<std::string> new_handles_;  // opened in this transaction
    bool map_full_ = false;
    TableState state_;
};

}  // namespace ipcfs::store
