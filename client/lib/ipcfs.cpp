// The C interface over the client header. The library exports only the functions of ipcfs.h, and no
// exception leaves them.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <type_traits>
#include <vector>

#include <ipcfs/channel.hpp>
#include <ipcfs/ipcfs.h>
#include <ipcfs/subscription.hpp>

struct ipcfs_channel {
    ipcfs::Channel channel;
};
struct ipcfs_message {
    ipcfs::Message message;
    ipcfs_header header;
    std::uint64_t size;
};
struct ipcfs_loan {
    ipcfs::Loan loan;
};
struct ipcfs_lease {
    ipcfs::Lease lease;
    ipcfs_message message;
};

static_assert(sizeof(ipcfs_header) == sizeof(ipcfs::FrameHeader));
static_assert(offsetof(ipcfs_header, payload_id) == offsetof(ipcfs::FrameHeader, payload_id));
static_assert(offsetof(ipcfs_header, sender_gid) == offsetof(ipcfs::FrameHeader, sender_gid));

namespace {

thread_local std::string last_error;

int fail(const ipcfs::Error& error) noexcept {
    try {
        last_error = error.message();
    } catch (const std::bad_alloc&) {
        last_error.clear();
    }
    return error.code > 0 ? -error.code : -EIO;
}

// Runs code that may throw std::bad_alloc, and nothing else.
template <class F>
int guarded(F&& run) noexcept {
    try {
        return run();
    } catch (const std::bad_alloc&) {
        return fail(ipcfs::Error{ENOMEM, "ipcfs"});
    }
}

int invalid(const char* operation) noexcept {
    return fail(ipcfs::Error{EINVAL, operation});
}

ipcfs::Timeout timeout_of(std::int64_t nanoseconds) noexcept {
    return nanoseconds < 0 ? ipcfs::kForever : ipcfs::Timeout(nanoseconds);
}

// Copies the caller's structure over the defaults; a caller compiled with an older, shorter one
// keeps the newer defaults.
template <class T>
T complete(const T* given, T defaults) noexcept {
    if (given != nullptr)
        std::memcpy(&defaults, given, std::min(sizeof defaults, given->struct_size));
    return defaults;
}

// `extensions` stores the bytes that the options point to.
int to_options(const ipcfs_send_options* given, ipcfs::SendOptions& out,
               std::vector<std::byte>& extensions) {
    const auto options = complete(given, ipcfs_send_options IPCFS_SEND_OPTIONS_INIT);
    out.priority = options.priority;
    out.type = static_cast<ipcfs::FrameType>(options.type);
    out.message_id = options.message_id;
    out.correlation_id = options.correlation_id;
    out.ttl = std::chrono::nanoseconds(std::max<std::int64_t>(options.ttl, 0));
    out.timeout = timeout_of(options.timeout);
    if (options.group != nullptr) out.group = options.group;
    if (options.method != nullptr) out.method = options.method;
    if (options.content_type == nullptr) return 0;
    const std::string_view text(options.content_type);
    if (!ipcfs::append_extension(extensions, ipcfs::ExtensionType::kContentType,
                                 std::as_bytes(std::span(text))))
        return invalid("content type");
    out.extensions = extensions;
    return 0;
}

void fill(ipcfs_message& out, ipcfs::Message message) {
    out.message = std::move(message);
    out.size = out.message.size();
    std::memcpy(&out.header, &out.message.header(), sizeof out.header);
}

// Runs `use` on what a handle or a pointer refers to; EINVAL if there is none. Returns what it
// returns: an Expected<void> or Expected<int>, or a result already made.
template <class Given, class Use>
int with(Given* given, const char* operation, Use&& use) noexcept {
    return guarded([&]() -> int {
        if (given == nullptr) return invalid(operation);
        auto result = use(*given);
        if constexpr (std::is_same_v<decltype(result), int>) {
            return result;
        } else {
            if (!result) return fail(result.error());
            if constexpr (std::is_same_v<decltype(result), ipcfs::Expected<int>>) return *result;
            return 0;
        }
    });
}

// Moves what was made to the caller's `out`.
template <class T, class From>
int give(ipcfs::Expected<From> made, T** out) {
    if (!made) return fail(made.error());
    *out = new T{std::move(*made)};
    return 0;
}

int send(ipcfs_channel* channel, const void* data, std::size_t size,
         const ipcfs_send_options* options, bool waits) {
    return guarded([&] {
        if (channel == nullptr || (data == nullptr && size != 0)) return invalid("send");
        ipcfs::SendOptions how;
        std::vector<std::byte> extensions;
        if (const int error = to_options(options, how, extensions)) return error;
        if (!waits) how.timeout = ipcfs::Timeout::zero();
        auto sent =
            channel->channel.send(std::span(static_cast<const std::byte*>(data), size), how);
        return sent ? 0 : fail(sent.error());
    });
}

}  // namespace

extern "C" {

const char* ipcfs_last_error(void) {
    return last_error.c_str();
}

const char* ipcfs_version(void) {
    return IPCFS_VERSION;
}

int ipcfs_open(const char* name, const ipcfs_open_options* given, ipcfs_channel** out) {
    return guarded([&] {
        if (name == nullptr || out == nullptr) return invalid("open");
        const auto options = complete(given, ipcfs_open_options IPCFS_OPEN_OPTIONS_INIT);
        ipcfs::ChannelOptions how;
        how.create = options.create != 0;
        how.mode = static_cast<mode_t>(options.mode);
        how.accept_pooled = options.refuse_pooled == 0;
        how.interruptible = options.interruptible != 0;
        if (options.pool_chunks != 0) how.pools.chunks = options.pool_chunks;
        return give(ipcfs::Channel::open(name, how), out);
    });
}

void ipcfs_close(ipcfs_channel* channel) {
    delete channel;
}

int ipcfs_send(ipcfs_channel* channel, const void* data, size_t size,
               const ipcfs_send_options* options) {
    return send(channel, data, size, options, true);
}

int ipcfs_try_send(ipcfs_channel* channel, const void* data, size_t size,
                   const ipcfs_send_options* options) {
    return send(channel, data, size, options, false);
}

int ipcfs_loan_take(ipcfs_channel* channel, size_t size, int64_t timeout, ipcfs_loan** out) {
    return guarded([&] {
        if (channel == nullptr || out == nullptr) return invalid("loan");
        ipcfs::LoanOptions how;
        how.timeout = timeout_of(timeout);
        return give(channel->channel.loan(size, how), out);
    });
}

void* ipcfs_loan_data(ipcfs_loan* loan) {
    return loan == nullptr ? nullptr : loan->loan.data();
}

size_t ipcfs_loan_size(const ipcfs_loan* loan) {
    return loan == nullptr ? 0 : loan->loan.size();
}

int ipcfs_loan_resize(ipcfs_loan* loan, size_t size) {
    if (loan == nullptr || !loan->loan.resize(size)) return invalid("resize loan");
    return 0;
}

int ipcfs_send_loan(ipcfs_channel* channel, ipcfs_loan* loan, const ipcfs_send_options* options) {
    return guarded([&] {
        if (channel == nullptr || loan == nullptr) return invalid("send loan");
        ipcfs::SendOptions how;
        std::vector<std::byte> extensions;
        if (const int error = to_options(options, how, extensions)) return error;
        auto sent = channel->channel.send(std::move(loan->loan), how);
        if (!sent) return fail(sent.error());
        delete loan;
        return 0;
    });
}

void ipcfs_loan_free(ipcfs_loan* loan) {
    delete loan;
}

int ipcfs_receive(ipcfs_channel* channel, int64_t timeout, ipcfs_message** out) {
    return guarded([&] {
        if (channel == nullptr || out == nullptr) return invalid("receive");
        // Allocate before taking the message, so that none is lost when memory is short.
        auto room = std::make_unique<ipcfs_message>();
        auto taken = channel->channel.receive(timeout_of(timeout));
        if (!taken) return fail(taken.error());
        fill(*room, std::move(*taken));
        *out = room.release();
        return 0;
    });
}

int ipcfs_subscribe(const char* topic, const ipcfs_subscribe_options* given, ipcfs_channel** out) {
    return guarded([&] {
        if (topic == nullptr || out == nullptr) return invalid("subscribe");
        const auto options = complete(given, ipcfs_subscribe_options IPCFS_SUBSCRIBE_OPTIONS_INIT);
        ipcfs::SubscriptionOptions how;
        how.create = options.create != 0;
        how.mode = static_cast<mode_t>(options.mode);
        if (options.filter != nullptr) how.filter = options.filter;
        how.channel.accept_pooled = options.refuse_pooled == 0;
        how.channel.interruptible = options.interruptible != 0;
        if (options.name == nullptr && options.filter != nullptr) return invalid("subscribe");
        auto opened = options.name == nullptr ? ipcfs::Subscription::follow(topic, how.channel)
                                              : ipcfs::Subscription::open(topic, options.name, how);
        if (!opened) return fail(opened.error());
        *out = new ipcfs_channel{std::move(opened->channel())};
        return 0;
    });
}

int ipcfs_lease_take(ipcfs_channel* channel, int64_t timeout, ipcfs_lease** out) {
    return guarded([&] {
        if (channel == nullptr || out == nullptr) return invalid("lease");
        auto room = std::make_unique<ipcfs_lease>();
        auto taken = channel->channel.lease(timeout_of(timeout));
        if (!taken) return fail(taken.error());
        fill(room->message, taken->message());
        room->lease = std::move(*taken);
        *out = room.release();
        return 0;
    });
}

ipcfs_message* ipcfs_lease_message(ipcfs_lease* lease) {
    return lease == nullptr ? nullptr : &lease->message;
}

int ipcfs_lease_ack(ipcfs_lease* lease) {
    return with(lease, "acknowledge", [](auto& held) { return held.lease.ack(); });
}

int ipcfs_lease_nack(ipcfs_lease* lease, int64_t delay) {
    return with(lease, "give back",
                [&](auto& held) { return held.lease.nack(ipcfs::Timeout(delay)); });
}

int ipcfs_lease_dead(ipcfs_lease* lease) {
    return with(lease, "bury", [](auto& held) { return held.lease.dead(); });
}

int ipcfs_lease_extend(ipcfs_lease* lease, int64_t time) {
    return with(lease, "extend lease",
                [&](auto& held) { return held.lease.extend(ipcfs::Timeout(time)); });
}

void ipcfs_lease_free(ipcfs_lease* lease) {
    delete lease;
}

void ipcfs_message_free(ipcfs_message* message) {
    delete message;
}

const ipcfs_header* ipcfs_message_header(const ipcfs_message* message) {
    return &message->header;
}

uint64_t ipcfs_message_size(const ipcfs_message* message) {
    return message->size;
}

int ipcfs_message_map(ipcfs_message* message, const void** data, size_t* size) {
    return guarded([&] {
        if (message == nullptr || data == nullptr || size == nullptr) return invalid("map");
        auto mapped = message->message.map();
        if (!mapped) return fail(mapped.error());
        *data = mapped->data();
        *size = mapped->size();
        return 0;
    });
}

void ipcfs_message_unmap(ipcfs_message* message) {
    if (message != nullptr && message->message.has_payload()) message->message = ipcfs::Message();
}

int ipcfs_message_extension(const ipcfs_message* message, uint16_t type, const void** data,
                            size_t* size) {
    if (message == nullptr || data == nullptr || size == nullptr) return invalid("extension");
    const auto value = message->message.extension(static_cast<ipcfs::ExtensionType>(type));
    if (!value) return fail(ipcfs::Error{ENOENT, "extension"});
    *data = value->data();
    *size = value->size();
    return 0;
}

int ipcfs_receive_fd(ipcfs_channel* channel) {
    return with(channel, "receive fd", [](auto& of) { return of.channel.receive_fd(); });
}

int ipcfs_send_fd(ipcfs_channel* channel) {
    return with(channel, "send fd", [](auto& of) { return of.channel.send_fd(); });
}

}  // extern "C"
