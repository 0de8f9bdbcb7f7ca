// LMDB. One thread at a time.
#include <charconv>
#include <fcntl.h>
#include <sys/stat.h>

#include <store/files.hpp>
#include <store/table.hpp>

namespace ipcfs::store {

namespace {

constexpr MDB_dbi kMaxTables = 65536;
constexpr std::size_t kMaxOpenTables = 2048;
constexpr std::size_t kFirstMap = std::size_t{1} << 30;
constexpr std::uint64_t kPageSize = 4096;

Bytes bytes_in(const MDB_val& value) {
    return {static_cast<const std::byte*>(value.mv_data), value.mv_size};
}

}  // namespace

std::string messages_table(std::uint64_t channel) {
    char name[18] = "m";
    for (int i = 0; i < 16; ++i) name[1 + i] = "0123456789abcdef"[channel >> (60 - 4 * i) & 15U];
    return {name, 17};
}

std::uint64_t channel_of_table(std::string_view name) {
    if (name.size() != 17 || name[0] != 'm') return 0;
    std::uint64_t id = 0;
    const auto read = std::from_chars(name.data() + 1, name.data() + 17, id, 16);
    return read.ec == std::errc{} && read.ptr == name.data() + 17 && messages_table(id) == name ? id
                                                                                                : 0;
}

std::optional<Bytes> checked_value(Bytes value) {
    if (value.size() < sizeof(ValueHeader)) return std::nullopt;
    const auto header = load<ValueHeader>(value);
    const auto rest = value.subspan(sizeof header);
    if (header.reserved != 0 || header.crc != crc32c(rest)) return std::nullopt;
    return rest;
}

Fault Table::fault(int code, const char* what) {
    if (code == MDB_MAP_FULL) map_full_ = true;
    const int number = code == MDB_MAP_FULL || code == MDB_TXN_FULL ? ENOSPC : code;
    return Fault{number > 0 ? number : EIO, std::string("LMDB: ") + what + " in " + directory_ +
                                                " (" + mdb_strerror(code) + ")"};
}

Result<std::unique_ptr<Table>> Table::open(const std::string& directory) {
    if (auto made = make_directory(directory); !made) return made.error();
    MDB_env* env = nullptr;
    if (mdb_env_create(&env) != 0) return Fault{ENOMEM, "LMDB: create"};
    std::unique_ptr<Table> table(new Table(directory, env));
    if (auto started = table->start(); !started) return started.error();
    return table;
}

Result<void> Table::start() {
    mdb_env_set_maxdbs(env_, kMaxTables);
    struct stat info {};
    const std::string file = directory_ + "/data.mdb";
    std::size_t map = kFirstMap;
    if (::stat(file.c_str(), &info) == 0)
        while (map < 2 * static_cast<std::size_t>(info.st_size)) map *= 2;
    mdb_env_set_mapsize(env_, map);
    // The lock of the store's directory keeps other processes out, and there are no readers
    // beside the one writer. Without read-ahead: what is read is read once.
    constexpr unsigned kFlags = MDB_NOTLS | MDB_NOLOCK;
    if (const int code = mdb_env_open(env_, directory_.c_str(), kFlags, 0600); code != 0)
        return fault(code, "open");
    if (::stat(file.c_str(), &info) != 0) return errno_fault("stat " + file);
    MDB_txn* txn = nullptr;
    if (const int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn); code != 0)
        return fault(code, "begin");
    txn_ = txn;
    Result<void> done;
    auto table = handle(std::string(kStateTable), false);
    if (table && *table != 0) {
        std::uint64_t number = 0;
        MDB_val key{sizeof number, &number};
        MDB_val value{};
        const int code = mdb_get(txn_, *table, &key, &value);
        const auto body = code == 0 ? checked_value(bytes_in(value)) : std::nullopt;
        if (body && body->size() == sizeof(TableState))
            state_ = load<TableState>(*body);
        else
            done = Fault{EBADMSG, "LMDB: the state record of " + directory_ + " is damaged"};
    } else if (!table) {
        done = table.error();
    }
    abort();
    return done;
}

Table::~Table() {
    if (txn_ != nullptr) mdb_txn_abort(txn_);
    mdb_env_close(env_);
}

std::uint64_t Table::bytes() const {
    struct stat info {};
    const std::string file = directory_ + "/data.mdb";
    return ::stat(file.c_str(), &info) == 0 ? static_cast<std::uint64_t>(info.st_size) : 0;
}

Result<MDB_dbi> Table::handle(const std::string& name, bool make) {
    if (const auto known = handles_.find(name); known != handles_.end())
        return {boost::system::in_place_value, known->second};
    MDB_dbi table = 0;
    const unsigned flags = MDB_INTEGERKEY | (make ? MDB_CREATE : 0U);
    const int code = mdb_dbi_open(txn_, name.c_str(), flags, &table);
    if (code == MDB_NOTFOUND && !make) return {boost::system::in_place_value, MDB_dbi{0}};
    if (code != 0) return fault(code, "open a table");
    handles_.emplace(name, table);
    new_handles_.push_back(name);
    return {boost::system::in_place_value, table};
}

Result<void> Table::begin_view(Visitor& to) {
    if (const int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn_); code != 0)
        return fault(code, "begin");
    const auto each = [&](MDB_dbi table, auto&& use) -> Result<void> {
        MDB_cursor* cursor = nullptr;
        if (const int code = mdb_cursor_open(txn_, table, &cursor); code != 0)
            return fault(code, "read");
        MDB_val key{};
        MDB_val value{};
        int code = 0;
        Result<void> done;
        while (done && (code = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0)
            done = use(bytes_in(key), bytes_in(value));
        mdb_cursor_close(cursor);
        if (done && code != MDB_NOTFOUND) return fault(code, "read");
        return done;
    };
    const Fault bad{EBADMSG, "LMDB: a record of " + directory_ + " is damaged"};
    auto state = handle(std::string(kStateTable), false);
    auto channels = handle(std::string(kChannelsTable), false);
    if (!state) return state.error();
    if (!channels) return channels.error();
    if (*state != 0) {
        auto done = each(*state, [&](Bytes key, Bytes value) -> Result<void> {
            const auto body = checked_value(value);
            if (!body || key.size() != 8) return bad;
            if (load<std::uint64_t>(key) != 1) return {};
            for (std::size_t at = 0; at + 8 <= body->size(); at += 8)
                to.request(load<std::uint64_t>(body->subspan(at)));
            return {};
        });
        if (!done) return done;
    }
    std::vector<std::uint64_t> ids;
    if (*channels != 0) {
        auto done = each(*channels, [&](Bytes key, Bytes value) -> Result<void> {
            const auto body = checked_value(value);
            if (!body || key.size() != 8 || body->size() < sizeof(ChannelBody)) return bad;
            const auto channel = load<ChannelBody>(*body);
            const auto record = body->subspan(sizeof channel);
            if (channel.id != load<std::uint64_t>(key) || channel.length != record.size())
                return bad;
            to.channel(channel, record);
            ids.push_back(channel.id);
            return {};
        });
        if (!done) return done;
    }
    for (const std::uint64_t id : ids) {
        auto table = handle(messages_table(id), false);
        if (!table) return table.error();
        if (*table == 0) continue;
        auto done = each(*table, [&](Bytes key, Bytes value) -> Result<void> {
            const auto body = checked_value(value);
            const auto message = body ? parse_message(*body) : std::nullopt;
            if (!message || key.size() != 8 || message->header.key.channel != id ||
                message->header.key.sequence != load<std::uint64_t>(key))
                return bad;
            to.message(*message);
            return {};
        });
        if (!done) return done;
    }
    return {};
}

std::optional<MessageView> Table::view(Key key) {
    const auto table = handles_.find(messages_table(key.channel));
    if (table == handles_.end()) return std::nullopt;
    MDB_val number{sizeof key.sequence, &key.sequence};
    MDB_val value{};
    if (mdb_get(txn_, table->second, &number, &value) != 0) return std::nullopt;
    // Its checksum was right when `begin_view` read it.
    if (value.mv_size < sizeof(ValueHeader)) return std::nullopt;
    return parse_message(bytes_in(value).subspan(sizeof(ValueHeader)));
}

void Table::end_view() {
    abort();
}

Result<void> Table::begin() {
    if (handles_.size() > kMaxOpenTables) {
        for (const auto& [name, table] : handles_) mdb_dbi_close(env_, table);
        handles_.clear();
    }
    if (const int code = mdb_txn_begin(env_, nullptr, 0, &txn_); code != 0)
        return fault(code, "begin");
    return {};
}

Result<void> Table::write(MDB_dbi table, std::uint64_t number, Bytes fixed, Bytes first,
                          Bytes second) {
    const std::size_t padded = align8(first.size());
    const std::size_t length = sizeof(ValueHeader) + fixed.size() + padded + align8(second.size());
    MDB_val key{sizeof number, &number};
    MDB_val value{length, nullptr};
    if (const int code = mdb_put(txn_, table, &key, &value, MDB_RESERVE); code != 0)
        return fault(code, "write");
    auto* const at = static_cast<std::byte*>(value.mv_data);
    auto* to = at + sizeof(ValueHeader);
    std::memset(to, 0, length - sizeof(ValueHeader));
    std::memcpy(to, fixed.data(), fixed.size());
    to += fixed.size();
    if (!first.empty()) std::memcpy(to, first.data(), first.size());
    to += padded;
    if (!second.empty()) std::memcpy(to, second.data(), second.size());
    ValueHeader header;
    header.crc = crc32c(Bytes(at, length).subspan(sizeof header));
    std::memcpy(at, &header, sizeof header);
    return {};
}

Result<void> Table::put(const MessageHeader& header, Bytes head, Bytes content) {
    auto table = handle(messages_table(header.key.channel), true);
    if (!table) return table.error();
    return write(*table, header.key.sequence, bytes_of(header), head, content);
}

Result<void> Table::set_state(Key key, const StateBody& state) {
    auto table = handle(messages_table(key.channel), false);
    if (!table) return table.error();
    MDB_val number{sizeof key.sequence, &key.sequence};
    MDB_val value{};
    const int code = *table == 0 ? MDB_NOTFOUND : mdb_get(txn_, *table, &number, &value);
    if (code != 0) return fault(code, "look up a message");
    // Copied: the page it lies in may move when it is written.
    const auto old = bytes_in(value);
    const std::vector<std::byte> copy(old.begin(), old.end());
    const auto body = checked_value(copy);
    auto message = body ? parse_message(*body) : std::nullopt;
    if (!message) return Fault{EBADMSG, "LMDB: a record of " + directory_ + " is damaged"};
    message->header.state = state;
    return write(*table, key.sequence, bytes_of(message->header), message->head, message->content);
}

Result<void> Table::erase(Key key) {
    auto table = handle(messages_table(key.channel), false);
    if (!table) return table.error();
    if (*table == 0) return {};
    MDB_val number{sizeof key.sequence, &key.sequence};
    const int code = mdb_del(txn_, *table, &number, nullptr);
    if (code != 0 && code != MDB_NOTFOUND) return fault(code, "erase");
    return {};
}

Result<void> Table::drop(std::uint64_t channel) {
    const std::string name = messages_table(channel);
    auto table = handle(name, false);
    if (!table) return table.error();
    if (*table != 0) {
        // Which also closes the handle, whatever becomes of the transaction.
        if (const int code = mdb_drop(txn_, *table, 1); code != 0) return fault(code, "drop");
        handles_.erase(name);
    }
    auto channels = handle(std::string(kChannelsTable), true);
    if (!channels) return channels.error();
    MDB_val key{sizeof channel, &channel};
    const int code = mdb_del(txn_, *channels, &key, nullptr);
    if (code != 0 && code != MDB_NOTFOUND) return fault(code, "erase a channel");
    return {};
}

Result<void> Table::put_channel(const ChannelBody& body, Bytes record) {
    auto table = handle(std::string(kChannelsTable), true);
    if (!table) return table.error();
    // Exactly as long as it is: the record's length is part of what is checked.
    std::uint64_t id = body.id;
    MDB_val key{sizeof id, &id};
    MDB_val value{sizeof(ValueHeader) + sizeof body + record.size(), nullptr};
    if (const int code = mdb_put(txn_, *table, &key, &value, MDB_RESERVE); code != 0)
        return fault(code, "write a channel");
    auto* const at = static_cast<std::byte*>(value.mv_data);
    std::memcpy(at + sizeof(ValueHeader), &body, sizeof body);
    if (!record.empty())
        std::memcpy(at + sizeof(ValueHeader) + sizeof body, record.data(), record.size());
    ValueHeader header;
    header.crc = crc32c(Bytes(at, value.mv_size).subspan(sizeof header));
    std::memcpy(at, &header, sizeof header);
    return {};
}

Result<void> Table::put_requests(std::span<const std::uint64_t> requests) {
    auto table = handle(std::string(kStateTable), true);
    if (!table) return table.error();
    return write(*table, 1, std::as_bytes(requests), {}, {});
}

Result<void> Table::commit(Lsn applied) {
    TableState next = state_;
    ++next.number;
    next.applied = applied;
    next.transaction = mdb_txn_id(txn_);
    auto table = handle(std::string(kStateTable), true);
    if (!table) return table.error();
    if (auto done = write(*table, 0, bytes_of(next), {}, {}); !done) return done;
    const int code = mdb_txn_commit(std::exchange(txn_, nullptr));
    if (code != 0) {
        for (const auto& name : new_handles_) handles_.erase(name);
        new_handles_.clear();
        return fault(code, "commit");
    }
    new_handles_.clear();
    state_ = next;
    return {};
}

bool Table::abort() {
    if (txn_ != nullptr) mdb_txn_abort(std::exchange(txn_, nullptr));
    for (const auto& name : new_handles_) handles_.erase(name);
    new_handles_.clear();
    if (!std::exchange(map_full_, false)) return false;
    MDB_envinfo info{};
    mdb_env_info(env_, &info);
    return mdb_env_set_mapsize(env_, info.me_mapsize * 2) == 0;
}

Result<void> Table::secure(std::uint64_t pages, std::uint64_t reserve) {
    mdb_filehandle_t file{};
    MDB_envinfo info{};
    mdb_env_get_fd(env_, &file);
    mdb_env_info(env_, &info);
    const std::uint64_t used = (info.me_last_pgno + 1) * kPageSize;
    const auto wanted = static_cast<off_t>(used + pages * kPageSize + reserve);
    if (::fallocate(file, FALLOC_FL_KEEP_SIZE, 0, wanted) == 0 || errno != ENOSPC) return {};
    struct stat at {};
    if (::fstat(file, &at) != 0) return errno_fault("LMDB: fstat");
    const std::uint64_t allocated = static_cast<std::uint64_t>(at.st_blocks) * 512;
    auto free = free_pages();
    if (!free) return free.error();
    const std::uint64_t available = *free + (allocated > used ? (allocated - used) / kPageSize : 0);
    if (available >= pages + reserve / kPageSize) return {};
    return Fault{ENOSPC, "LMDB: no room in " + directory_};
}

// What the list of free pages has: pages that a transaction may use again.
Result<std::uint64_t> Table::free_pages() {
    MDB_txn* txn = nullptr;
    if (const int code = mdb_txn_begin(env_, nullptr, MDB_RDONLY, &txn); code != 0)
        return fault(code, "begin");
    std::uint64_t count = 0;
    MDB_cursor* cursor = nullptr;
    if (mdb_cursor_open(txn, 0, &cursor) == 0) {
        MDB_val key{};
        MDB_val value{};
        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0)
            count += load<std::uint64_t>(bytes_in(value));
        mdb_cursor_close(cursor);
    }
    mdb_txn_abort(txn);
    return {boost::system::in_place_value, count};
}

}  // namespace ipcfs::store
