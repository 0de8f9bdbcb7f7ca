// A reader of LMDB's file that believes nothing. One thread; recursion is bounded by the depth.
#include <algorithm>
#include <csignal>
#include <fcntl.h>
#include <set>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <store/files.hpp>
#include <store/table.hpp>
#include <store/walk.hpp>

namespace ipcfs::store {

namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint32_t kMagic = 0xbeefc0de;
constexpr std::uint16_t kBranch = 1, kLeaf = 2, kOverflow = 4, kMetaPage = 8;
constexpr std::uint16_t kBigData = 1, kSubData = 2;
constexpr std::uint16_t kIntegerKey = 8;
constexpr std::uint64_t kNoPage = ~std::uint64_t{0};
constexpr unsigned kMostDepth = 32;

struct PageHeader {
    std::uint64_t number;
    std::uint16_t pad, flags;
    std::uint16_t lower, upper;  // of an overflow page: the count of pages
};
static_assert(sizeof(PageHeader) == 16);

struct Tree {  // MDB_db
    std::uint32_t pad;
    std::uint16_t flags, depth;
    std::uint64_t branches, leaves, overflows, entries, root;
};
static_assert(sizeof(Tree) == 48);

struct Meta {
    std::uint32_t magic, version;
    std::uint64_t address, map_size;
    Tree free, main;
    std::uint64_t last_page, transaction;
};
static_assert(sizeof(Meta) == 136);

struct NodeHeader {
    std::uint16_t low, high, flags, key_size;
};

class Walk {
public:
    using Use = std::function<void(Bytes value, bool is_channel)>;

    Walk(Bytes file, bool tolerant, Use use)
        : file_(file), tolerant_(tolerant), use_(std::move(use)) {}

    std::string run();

private:
    enum class Kind { kMain, kFree, kState, kChannels, kMessages };
    struct Counts {
        std::uint64_t branches = 0, leaves = 0, overflows = 0, entries = 0;
    };
    struct Place {  // in a tree
        Kind kind;
        std::uint64_t channel;
        const Tree& tree;
        Counts counts;
        std::optional<std::vector<std::byte>> last;  // the key before
    };

    bool bad(const std::string& what) {
        if (wrong_.empty()) wrong_ = what;
        return tolerant_;
    }
    bool choose();
    bool claim(std::uint64_t page, std::uint64_t count);
    Bytes page(std::uint64_t number) const { return file_.subspan(number * kPage, kPage); }
    static int compare(Kind kind, Bytes a, Bytes b);
    void tree(const Tree& tree, Kind kind, std::uint64_t channel);
    void descend(Place& place, std::uint64_t number, unsigned level, std::optional<Bytes> low,
                 std::optional<Bytes> high);
    void leaf(Place& place, Bytes key, Bytes value, std::uint16_t flags);
    void free_pages(Bytes value);
    void value(Place& place, Bytes key, Bytes stored);
    std::string at(std::uint64_t number) const { return "page " + std::to_string(number); }

    Bytes file_;
    bool tolerant_;
    Use use_;
    std::string wrong_;
    Meta meta_{};
    std::vector<bool> claimed_;
    std::set<std::uint64_t> channels_, tables_;
};

int Walk::compare(Kind kind, Bytes a, Bytes b) {
    if (kind == Kind::kMain) {
        const std::size_t size = std::min(a.size(), b.size());
        const int order = size == 0 ? 0 : std::memcmp(a.data(), b.data(), size);
        if (order != 0) return order;
        return a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0;
    }
    const auto x = load<std::uint64_t>(a);
    const auto y = load<std::uint64_t>(b);
    return x < y ? -1 : x > y ? 1 : 0;
}

// The younger of the two metas. They are written in turn, so their numbers tell if one was changed.
bool Walk::choose() {
    if (file_.size() < 2 * kPage) return bad("it is too short"), false;
    std::optional<Meta> best;
    std::array<std::optional<std::uint64_t>, 2> transactions;
    for (std::uint64_t i = 0; i < 2; ++i) {
        const auto header = load<PageHeader>(page(i));
        const auto meta = load<Meta>(page(i).subspan(sizeof header));
        const bool good = header.number == i && header.flags == kMetaPage && meta.magic == kMagic &&
                          meta.version == 1 && meta.free.pad == kPage &&
                          meta.free.flags == kIntegerKey && meta.main.flags == 0;
        if (!good) {
            bad("meta " + at(i) + " is wrong");
            continue;
        }
        transactions[i] = meta.transaction;
        if (!best || meta.transaction > best->transaction) best = meta;
    }
    if (!best) return false;
    meta_ = *best;
    if (transactions[0] && transactions[1]) {
        const std::uint64_t a = *transactions[0];
        const std::uint64_t b = *transactions[1];
        const bool in_turn = (a == 0 && b == 0) || ((a > b ? a - b : b - a) == 1 && a % 2 == 0);
        if (!in_turn) bad("the metas do not follow each other");
    }
    if (meta_.last_page > UINT32_MAX) return bad("it claims to be too large"), false;
    claimed_.resize(meta_.last_page + 1);
    return true;
}

// Each page belongs to one thing only.
bool Walk::claim(std::uint64_t number, std::uint64_t count) {
    if (number < 2 || count == 0 || number > meta_.last_page ||
        count > meta_.last_page + 1 - number)
        return bad(at(number) + " is outside"), false;
    for (std::uint64_t i = number; i < number + count; ++i) {
        if (claimed_[i]) return bad(at(i) + " is in two places"), false;
        claimed_[i] = true;
    }
    return true;
}

void Walk::tree(const Tree& tree, Kind kind, std::uint64_t channel) {
    Place place{kind, channel, tree, {}, {}};
    if (tree.root == kNoPage) {
        if (tree.depth != 0 || tree.entries != 0) bad("an empty tree is not empty");
    } else if (tree.depth == 0 || tree.depth > kMostDepth) {
        bad("a tree has an impossible depth");
        return;
    } else {
        descend(place, tree.root, 1, {}, {});
    }
    const Counts& counts = place.counts;
    if (counts.branches != tree.branches || counts.leaves != tree.leaves ||
        counts.overflows != tree.overflows || counts.entries != tree.entries)
        bad("a tree has not what it says it has");
}

void Walk::descend(Place& place, std::uint64_t number, unsigned level, std::optional<Bytes> low,
                   std::optional<Bytes> high) {
    if (!wrong_.empty() && !tolerant_) return;
    if (!claim(number, 1)) return;
    if ((number + 1) * kPage > file_.size()) return void(bad(at(number) + " is behind the end"));
    const Bytes bytes = page(number);
    const auto header = load<PageHeader>(bytes);
    const bool is_leaf = level == place.tree.depth;
    const std::uint16_t expected = is_leaf ? kLeaf : kBranch;
    if (header.number != number || header.flags != expected || header.lower < sizeof header ||
        header.lower % 2 != 0 || header.lower > header.upper || header.upper > kPage)
        return void(bad(at(number) + " has a wrong header"));
    (is_leaf ? place.counts.leaves : place.counts.branches)++;
    const std::size_t keys = (header.lower - sizeof header) / 2;
    if (keys == 0 || (!is_leaf && keys < 2)) bad(at(number) + " has too few keys");
    std::uint64_t used = 0;
    struct Child {
        std::uint64_t number;
        Bytes key;
    };
    std::vector<Child> children;
    for (std::size_t i = 0; i < keys; ++i) {
        const auto offset = load<std::uint16_t>(bytes.subspan(sizeof header + 2 * i));
        if (offset < header.upper || offset % 2 != 0 || offset + sizeof(NodeHeader) > kPage) {
            bad(at(number) + " has a node outside");
            continue;
        }
        const auto node = load<NodeHeader>(bytes.subspan(offset));
        const std::uint64_t data = std::uint64_t{node.low} | std::uint64_t{node.high} << 16;
        const bool big = is_leaf && (node.flags & kBigData) != 0;
        const std::uint64_t inside = !is_leaf ? 0 : big ? 8 : data;
        const std::uint64_t size = sizeof node + node.key_size + inside;
        if (offset + size > kPage) {
            bad(at(number) + " has a node that is too long");
            continue;
        }
        used += size + size % 2;
        const Bytes key = bytes.subspan(offset + sizeof node, node.key_size);
        const bool key_counts = is_leaf || i != 0;
        if (key_counts && place.kind != Kind::kMain && key.size() != 8) {
            bad(at(number) + " has a key of a wrong length");
            continue;
        }
        if (!is_leaf) {
            children.push_back({data | std::uint64_t{node.flags} << 32, key});
            continue;
        }
        if ((low && compare(place.kind, key, *low) < 0) ||
            (high && compare(place.kind, key, *high) >= 0) ||
            (place.last && compare(place.kind, *place.last, key) >= 0))
            if (!bad(at(number) + " has keys out of order")) return;
        place.last.emplace(key.begin(), key.end());
        ++place.counts.entries;
        if (!big) {
            leaf(place, key, bytes.subspan(offset + sizeof node + node.key_size, data), node.flags);
            continue;
        }
        const auto first = load<std::uint64_t>(bytes.subspan(offset + sizeof node + node.key_size));
        const std::uint64_t count = (sizeof header + data + kPage - 1) / kPage;
        if (!claim(first, count)) continue;
        if ((first + count) * kPage > file_.size()) {
            bad(at(first) + " is behind the end");
            continue;
        }
        const auto over = load<PageHeader>(page(first));
        const std::uint64_t claims = over.lower | std::uint64_t{over.upper} << 16;
        if (over.number != first || over.flags != kOverflow || claims != count)
            bad(at(first) + " has a wrong header");
        place.counts.overflows += count;
        leaf(place, key, file_.subspan(first * kPage + sizeof over, data),
             static_cast<std::uint16_t>(node.flags & ~kBigData));
    }
    if (used != kPage - header.upper) bad(at(number) + " is not filled as it says");
    for (std::size_t i = 0; i < children.size(); ++i) {
        const auto from = i == 0 ? low : std::optional(children[i].key);
        const auto to = i + 1 == children.size() ? high : std::optional(children[i + 1].key);
        if (from && to && place.kind != Kind::kMain && compare(place.kind, *from, *to) >= 0)
            bad(at(number) + " has keys out of order");
        descend(place, children[i].number, level + 1, from, to);
    }
}

void Walk::free_pages(Bytes value) {
    if (value.size() < 8 || value.size() % 8 != 0) return void(bad("a list of free pages is odd"));
    const auto count = load<std::uint64_t>(value);
    if (count > value.size() / 8 - 1) return void(bad("a list of free pages is too short"));
    std::uint64_t before = kNoPage;
    for (std::uint64_t i = 1; i <= count; ++i) {
        const auto number = load<std::uint64_t>(value.subspan(8 * i));
        if (number >= before) return void(bad("a list of free pages is not in order"));
        before = number;
        if (!claim(number, 1)) return;
    }
}

void Walk::leaf(Place& place, Bytes key, Bytes stored, std::uint16_t flags) {
    if (place.kind != Kind::kMain) {
        if (flags != 0) return void(bad("a value has flags"));
        if (place.kind == Kind::kFree) return free_pages(stored);
        return value(place, key, stored);
    }
    const std::string_view name(reinterpret_cast<const char*>(key.data()), key.size());
    if (flags != kSubData || stored.size() != sizeof(Tree))
        return void(bad("the main table has something else than tables"));
    const auto sub = load<Tree>(stored);
    if (sub.flags != kIntegerKey || sub.pad != 0) return void(bad("a table has wrong flags"));
    if (name == kStateTable) return tree(sub, Kind::kState, 0);
    if (name == kChannelsTable) return tree(sub, Kind::kChannels, 0);
    const std::uint64_t channel = channel_of_table(name);
    if (channel == 0) return void(bad("there is a table of an unknown name"));
    tables_.insert(channel);
    tree(sub, Kind::kMessages, channel);
}

void Walk::value(Place& place, Bytes key, Bytes stored) {
    const auto number = load<std::uint64_t>(key);
    const auto body = checked_value(stored);
    if (!body) return void(bad("a value has a wrong checksum"));
    if (place.kind == Kind::kState) {
        if (number != 0) return;
        if (body->size() != sizeof(TableState)) return void(bad("the state is too short"));
        if (load<TableState>(*body).transaction != meta_.transaction)
            bad("the state is of another transaction");
        return;
    }
    if (place.kind == Kind::kChannels) {
        if (body->size() < sizeof(ChannelBody)) return void(bad("a channel is too short"));
        const auto channel = load<ChannelBody>(*body);
        if (channel.id != number || channel.length != body->size() - sizeof channel)
            return void(bad("a channel is not where it belongs"));
        channels_.insert(number);
        if (use_) use_(*body, true);
        return;
    }
    const auto message = parse_message(*body);
    if (!message || message->header.key.channel != place.channel ||
        message->header.key.sequence != number || message->length != body->size())
        return void(bad("a message is not where it belongs"));
    if (use_) use_(*body, false);
}

std::string Walk::run() {
    if (!choose()) return wrong_;
    tree(meta_.free, Kind::kFree, 0);
    tree(meta_.main, Kind::kMain, 0);
    for (std::uint64_t i = 2; i < claimed_.size() && wrong_.empty(); ++i)
        if (!claimed_[i]) bad(at(i) + " belongs to nothing");
    for (const std::uint64_t id : tables_)
        if (!channels_.contains(id)) bad("messages have no channel");
    return wrong_;
}

Bytes map_file(const std::string& path) {
    auto file = open_file(path, O_RDONLY);
    struct stat info {};
    if (!file || ::fstat(file->get(), &info) != 0 || info.st_size == 0) return {};
    const auto size = static_cast<std::size_t>(info.st_size);
    void* const at = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file->get(), 0);
    if (at == MAP_FAILED) return {};
    ::madvise(at, size, MADV_WILLNEED);
    return {static_cast<const std::byte*>(at), size};
}

}  // namespace

Salvage::Salvage(const std::string& file) : bytes_(map_file(file)) {}

Salvage::~Salvage() {
    if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void Salvage::for_each(const std::function<void(Bytes, bool)>& use) const {
    if (!bytes_.empty()) Walk(bytes_, true, use).run();
}

std::string verify(const std::string& file) {
    const Bytes bytes = map_file(file);
    if (bytes.empty()) return "its file is missing or empty";
    std::string wrong = Walk(bytes, false, {}).run();
    ::munmap(const_cast<std::byte*>(bytes.data()), bytes.size());
    return wrong;
}

Verdict verify_in_child(const std::string& file) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return {verify(file), false};
    Fd from(ends[0]);
    Fd to(ends[1]);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child < 0) return {verify(file), false};
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(1);
        const std::string wrong = verify(file) + "\n";
        const auto put = ::write(to.get(), wrong.data(), wrong.size());
        ::_exit(put == static_cast<ssize_t>(wrong.size()) ? 0 : 1);
    }
    to.reset();
    Verdict verdict;
    char text[256];
    for (ssize_t got = 0; (got = ::read(from.get(), text, sizeof text)) != 0;) {
        if (got > 0)
            verdict.wrong.append(text, static_cast<std::size_t>(got));
        else if (errno != EINTR)
            break;
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (!verdict.wrong.empty() && verdict.wrong.back() == '\n') {
        verdict.wrong.pop_back();
        return verdict;
    }
    // It did not come to its end. Unless it was the disk, that says nothing about the file.
    const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    if (signal != SIGBUS && signal != SIGSEGV && signal != SIGABRT) return {verify(file), false};
    verdict.crashed = true;
    verdict.wrong = "it cannot be read";
    return verdict;
}

}  // namespace ipcfs::store
