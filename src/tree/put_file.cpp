// Filling, sealing and enqueueing of what is written to `put`. Any thread.
#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <payload/memory.hpp>

#include <base/process.hpp>
#include <ipcfs/frame.hpp>
#include <tree/put_file.hpp>

namespace ipcfs::tree {

namespace {

constexpr std::uint64_t kPlainBody = 64U << 10;  // up to here a message carries its body itself
constexpr Nanos kLookPeriod = 5 * kMillisecond;

Fault too_long() {
    return Fault{EMSGSIZE, "put: larger than max-payload"};
}

// 0, or why not all was written.
int write_all(int file, std::span<const std::byte> data, std::uint64_t at) {
    while (!data.empty()) {
        ssize_t done = ::pwrite(file, data.data(), data.size(), static_cast<off_t>(at));
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return done < 0 ? errno : EIO;
        data = data.subspan(static_cast<std::size_t>(done));
        at += static_cast<std::uint64_t>(done);
    }
    return 0;
}

}  // namespace

class PutFile::Watcher final : public Timed, public std::enable_shared_from_this<Watcher> {
public:
    explicit Watcher(std::weak_ptr<PutFile> file) : file_(std::move(file)) {}
    void on_time(Nanos now) noexcept override {
        auto file = file_.lock();
        if (!file || !file->look()) return;
        file->timers_.arm(weak_from_this(), now + kLookPeriod);
    }

private:
    std::weak_ptr<PutFile> file_;
};

Result<std::shared_ptr<PutFile>> PutFile::open(std::shared_ptr<channel::Endpoint> channel,
                                               NodeId node, bool framed, OpenMode mode,
                                               const access::Subject& subject,
                                               payload::Store& payloads, TimerQueue& timers,
                                               const Clock& clock) {
    auto entry = Entry::take(std::move(channel), mode, subject);
    if (!entry) return entry.error();
    if (auto room = payloads.budget().check(0); !room) {
        entry->channel->note_error(room.error().operation);
        return room.error();
    }
    auto memory = payload::make_memory("ipcfs-put-" + std::to_string(entry->channel->id()));
    if (!memory) return memory.error();
    return std::make_shared<PutFile>(std::move(*entry), node, framed, subject, payloads, timers,
                                     clock, std::move(*memory));
}

PutFile::PutFile(Entry entry, NodeId node, bool framed, const access::Subject& opener,
                 payload::Store& payloads, TimerQueue& timers, const Clock& clock, Fd memory)
    : SendingFile(std::move(entry), queue::Via::kOther),
      node_(without_aside(node)),
      is_aside_(node_ != node),
      opener_(opener),
      framed_(framed),
      payloads_(payloads),
      timers_(timers),
      clock_(clock),
      memory_(std::move(memory)) {}

PutFile::~PutFile() {
    if (state_ == State::kFilling && !killed_) {
        queue::Batch batch;
        // Nobody can get an error any more; the channel's status keeps it.
        if (make_message(batch) == 0 && batch.count > 0) {
            push_detached(channel_, std::move(batch), [channel = channel_](int failed) {
                if (failed) {
                    channel->note_error("put: closed by its last holder, and not queued: " +
                                        Fault{failed, "enqueue"}.message());
                }
            });
        }
    }
    channel_->forget(poll_slot_);
}

// ---- filling ------------------------------------------------------------------------------------

Traits PutFile::traits() const noexcept {
    Traits traits;
    traits.wants_flush = true;
    if (!framed_ && !is_aside_) traits.backing = Backing{memory_.get(), true};
    return traits;
}

void PutFile::backed() noexcept {
    std::scoped_lock hold(mutex_);
    backed_ = true;
    watcher_ = std::make_shared<Watcher>(weak_from_this());
    timers_.arm(watcher_, clock_.monotonic() + kLookPeriod);
}

// Under the lock. Charges up to `size` bytes of content.
int PutFile::grow(std::uint64_t size) {
    if (size <= size_) return 0;
    if (size > channel_->settings().max_payload) return spoil(EMSGSIZE, too_long().operation);
    // Bytes that were written past the daemon use memory already.
    auto more = backed_ ? payloads_.budget().adopt(account_, size - size_)
                        : payloads_.budget().take(account_, size - size_);
    if (!more) return spoil(more.error().code, more.error().operation);
    charges_.push_back(std::move(*more));
    size_ = size;
    return 0;
}

// Under the lock. What was written is lost, and the memory free at once; every close says why.
int PutFile::spoil(int error, std::string why) noexcept {
    state_ = State::kSpoiled;
    error_ = error;
    if (backed_) ::fcntl(memory_.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_WRITE);
    (void)::ftruncate(memory_.get(), 0);
    charges_.clear();
    size_ = 0;
    channel_->note_error(std::move(why));
    return error;
}

// What was written past the daemon since the last look. False: it is over.
bool PutFile::look() noexcept {
    std::scoped_lock hold(mutex_);
    if (state_ != State::kFilling) return false;
    struct stat st {};
    if (::fstat(memory_.get(), &st) != 0) return false;
    return grow(static_cast<std::uint64_t>(st.st_size)) == 0;
}

int PutFile::store(std::span<const std::byte> data, std::uint64_t at) {
    std::uint64_t end = 0;
    if (__builtin_add_overflow(at, data.size(), &end) || end > INT64_MAX) return EFBIG;
    if (int error = grow(end)) return error;
    return write_all(memory_.get(), data, at);
}

// A header comes first, in as many writes as its sender likes; the body is stored without it.
int PutFile::write_frame(std::span<const std::byte> data, std::uint64_t at) {
    if (!header_) {
        if (at != head_.size()) return ESPIPE;
        while (!header_ && !data.empty()) {
            std::size_t whole = sizeof(FrameHeader);
            FrameHeader header;
            if (head_.size() >= whole) {
                std::memcpy(&header, head_.data(), sizeof header);
                whole = header.header_length;
            }
            std::size_t part = std::min(data.size(), whole - head_.size());
            head_.insert(head_.end(), data.begin(),
                         data.begin() + static_cast<std::ptrdiff_t>(part));
            data = data.subspan(part);
            at += part;
            if (head_.size() < sizeof header) break;
            std::memcpy(&header, head_.data(), sizeof header);
            FrameError wrong =
                header.magic != kFrameMagic ? FrameError::kBadMagic
                : header.header_length < sizeof header || header.header_length > kMaxFrameHeader
                    ? FrameError::kBadHeaderLength
                    : detail::check_fixed(header);
            if (wrong != FrameError::kNone) {
                return spoil(EINVAL, std::string("framed/put: ") + to_string(wrong));
            }
            if (head_.size() < header.header_length) continue;
            bool passes = header.type == FrameType::kCapability ||
                          header.type == FrameType::kHandoff || header.capability_id ||
                          header.payload_id || header.deadline > INT64_MAX;
            auto extensions = std::span(head_).subspan(sizeof header);
            FrameView view{header, extensions, {}};
            if (!valid_extensions(extensions) || passes ||
                view.extension(ExtensionType::kPayload)) {
                return spoil(EINVAL, "framed/put: bad extensions, or a type that does not go here");
            }
            if (header.body_length > channel_->settings().max_payload) {
                return spoil(EMSGSIZE, too_long().operation);
            }
            header_ = header;
        }
    }
    if (data.empty()) return 0;
    if (at < head_.size() || at - head_.size() > header_->body_length ||
        data.size() > header_->body_length - (at - head_.size())) {
        return spoil(EINVAL, "framed/put: more than the header's body length, or before the body");
    }
    return store(data, at - head_.size());
}

// Behind the last byte written.
std::uint64_t PutFile::end() const noexcept {
    return head_.size() + size_;
}

int PutFile::accept(const WriteRequest& request) {
    if (state_ == State::kSpoiled) return error_;
    if (state_ == State::kDone) return EPIPE;  // the message is on its way
    // The kernel gives the size that it knows, which may be old.
    const std::uint64_t at = request.appends ? end() : request.offset;
    return framed_ ? write_frame(request.data, at) : store(request.data, at);
}

Outcome PutFile::try_write(const WriteRequest& request, queue::Batch&, int& error) noexcept {
    std::scoped_lock hold(mutex_);
    error = accept(request);
    return Outcome::kDone;
}

// ---- closing ------------------------------------------------------------------------------------

Result<queue::MessageRef> PutFile::message_of(std::uint64_t size) {
    std::vector<std::byte> extensions;
    if (framed_) extensions.assign(head_.begin() + sizeof(FrameHeader), head_.end());
    queue::MessageRef message;
    if (size <= std::min(kPlainBody, channel_->settings().max_message)) {
        std::vector<std::byte> body(size);
        ssize_t got = ::pread(memory_.get(), body.data(), body.size(), 0);
        if (got != static_cast<ssize_t>(size)) return Fault{EIO, "put: read it back"};
        message = channel_->make_message(extensions, body);
    } else {
        auto sealed = payload::seal(memory_.get());
        if (!sealed) return sealed.error();
        auto readable = payload::reopen_read_only(memory_.get());
        if (!readable) return readable.error();
        // One charge for all that was charged bit by bit.
        charges_.clear();
        auto charge = access::Charge::force(account_, access::Resource::kPayloadBytes, *sealed);
        auto payload = payloads_.add_sealed(channel_->id(), std::move(*readable), *sealed,
                                            account_.uid(), std::move(charge));
        PayloadRef ref = payload->ref();
        if (!append_extension(extensions, ExtensionType::kPayload,
                              std::as_bytes(std::span(&ref, 1)))) {
            return Fault{EINVAL, "framed/put: no room for the payload's extension"};
        }
        message = channel_->make_message(extensions, {});
        if (message) message->payload = std::move(payload);
    }
    if (!message) return Fault{ENOMEM, "put: memory for the message"};
    return message;
}

// Under the lock (or alone). An errno, and the batch is empty; an empty batch without an error: there
// was nothing to send.
int PutFile::make_message(queue::Batch& batch) {
    struct stat st {};
    if (::fstat(memory_.get(), &st) != 0) return EIO;
    auto size = static_cast<std::uint64_t>(st.st_size);
    if (framed_) {
        if (head_.empty()) return 0;
        if (!header_ || size != header_->body_length) {
            return spoil(EINVAL, "framed/put: closed before the frame was whole");
        }
    } else if (size == 0) {
        return 0;
    }
    if (int error = grow(size)) return error;
    auto message = message_of(size);
    if (!message) return spoil(message.error().code, message.error().operation);
    queue::Envelope& e = (*message)->envelope;
    e.sender = opener_;
    if (header_) {
        e.priority = header_->priority;
        e.type = static_cast<std::uint8_t>(header_->type);
        e.id = header_->message_id;
        e.correlation = header_->correlation_id;
        e.deadline = static_cast<Nanos>(header_->deadline);
        e.drop_when_late = (header_->flags & kFrameExpires) != 0;
    }
    if (!(*message)->charge(account_)) {
        return spoil(EDQUOT, "put: the user's limit of messages or bytes");
    }
    batch.add(std::move(*message));
    state_ = State::kDone;
    memory_.reset();
    charges_.clear();
    return 0;
}

// The bytes written so far are lost with the daemon.
std::uint32_t PutFile::marks() const noexcept {
    std::scoped_lock hold(mutex_);
    const bool begun = backed_ || size_ > 0 || !head_.empty() || header_;
    return state_ == State::kSpoiled || (state_ == State::kFilling && begun) ? kTouched : 0U;
}

Outcome PutFile::try_flush(const access::Subject& by, bool nonblocking, queue::Batch& pending,
                           int& error) noexcept {
    error = 0;
    bool killed = died_of_signal(by.tid);
    {
        std::scoped_lock hold(mutex_);
        if (state_ == State::kSpoiled) error = error_;
        if (state_ != State::kFilling) return Outcome::kDone;
        if (killed) {
            killed_ = true;
            return Outcome::kDone;
        }
    }
    // A look into /proc: without the lock.
    if (by.pid != opener_.pid || (by.pid != 0 && has_open(by.pid, node_.raw(), "fuse.ipcfs"))) {
        return Outcome::kDone;
    }
    std::scoped_lock hold(mutex_);
    if (state_ == State::kSpoiled) error = error_;  // by a look meanwhile
    if (state_ != State::kFilling) return Outcome::kDone;
    error = make_message(pending);
    if (error || pending.count == 0) return Outcome::kDone;
    return push(pending, nonblocking, error);
}

// ---- polling ------------------------------------------------------------------------------------

unsigned PutFile::poll(std::unique_ptr<channel::PollTicket> ticket) noexcept {
    return channel_->poll(poll_slot_, std::move(ticket)) & ~static_cast<unsigned>(POLLIN);
}

}  // namespace ipcfs::tree
