// The C interface over the client header. Nothing but the functions of ipcfs.h leaves the library, and
// no exception leaves those.
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include <ipcfs/channel.hpp>
#include <ipcfs/ipcfs.h>

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

// Runs what may throw for want of memory, and nothing else.
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

// What a caller that was compiled with an older, shorter structure did not give has its default.
template <class T>
T complete(const T* given, T defaults) noexcept {
    if (given != nullptr)
        std::memcpy(&defaults, given, std::min(sizeof defaults, given->struct_size));
    return defaults;
}

// `extensions` keeps what the options point to.
int to_options(const ipcfs_send_options* given, ipcfs::SendOptions& out,
               std::vector<std::byte>& extensions) {
    const auto options = complete(given, ipcfs_send_options IPCFS_SEND_OPTIONS_INIT);
    out.priority = options.priority;
    out.type = static_cast<ipcfs::FrameType>(options.type);
    out.message_id = options.message_id;
    out.correlation_id = options.correlation_id;
    out.ttl = std::chrono::nanoseconds(std::max<std::int64_t>(options.ttl, 0));
    out.timeout = timeout_of(options.timeout);
    if (options.content_type == nullptr) return 0;
    const std::string_view text(options.content_type);
    if (!ipcfs::append_extension(extensions, ipcfs::ExtensionType::kContentType,
                                 std::as_bytes(std::span(text))))
        return invalid("content type");
    out.extensions = extensions;
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
        auto opened = ipcfs::Channel::open(name, how);
        if (!opened) return fail(opened.error());
        *out = new ipcfs_channel{std::move(*opened)};
        return 0;
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
        auto lent = channel->channel.loan(size, how);
        if (!lent) return fail(lent.error());
        *out = new ipcfs_loan{std::move(*lent)};
        return 0;
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
        // Before the message is taken: nothing is lost for want of memory.
        auto room = std::make_unique<ipcfs_message>();
        auto taken = channel->channel.receive(timeout_of(timeout));
        if (!taken) return fail(taken.error());
        room->message = std::move(*taken);
        room->size = room->message.size();
        std::memcpy(&room->header, &room->message.header(), sizeof room->header);
        *out = room.release();
        return 0;
    });
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
    return guarded([&] {
        if (channel == nullptr) return invalid("receive fd");
        auto fd = channel->channel.receive_fd();
        return fd ? *fd : fail(fd.error());
    });
}

int ipcfs_send_fd(ipcfs_channel* channel) {
    return guarded([&] {
        if (channel == nullptr) return invalid("send fd");
        auto fd = channel->channel.send_fd();
        return fd ? *fd : fail(fd.error());
    });
}

}  // extern "C"
