// Lease: a message received with acknowledgement. It belongs to the holder for the time of the
// channel's setting `lease`, and is removed when acknowledged. Otherwise it is redelivered, flagged
// as such, or becomes a dead letter after `max-deliveries`.
//
//     auto job = jobs.lease();
//     if (!job) return fail(job.error().message());
//     if (work(job->message().text())) job->ack();
//
// Move-only; one thread at a time for each Lease. A Lease may outlive its Channel, and the message may
// outlive both. A forked child does not share its parent's leases: there all calls return ESTALE.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <fcntl.h>
#include <memory>
#include <mutex>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

#include <ipcfs/message.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/reader.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

namespace detail {
class LeaseFiles;
}

class Lease {
public:
    // None.
    Lease() = default;
    Lease(Lease&& other) noexcept = default;
    Lease& operator=(Lease&& other) noexcept {
        if (this != &other) {
            give_back();
            message_ = std::move(other.message_);
            file_ = std::move(other.file_);
            files_ = std::move(other.files_);
            epoch_ = other.epoch_;
        }
        return *this;
    }
    // Gives the message back. Does not wait for the daemon.
    ~Lease() { give_back(); }

    // Whether this object has not ended the lease. The lease may still have expired in the daemon.
    explicit operator bool() const noexcept { return file_ != nullptr; }
    // The message; stays valid after the lease has ended.
    const Message& message() const noexcept { return message_; }
    const Message* operator->() const noexcept { return &message_; }

    // Each of the following except extend() ends the lease. ESTALE: it had ended already (it
    // expired, or the channel was purged or removed), so another receiver may have the message;
    // nothing was done.

    // The work is done: removes the message; in a durable channel permanently, when this returns.
    Expected<void> ack() { return end("acknowledge", "ack"); }
    // The work could not be done: requeues the message at the front, at once or after `delay`.
    Expected<void> nack(Timeout delay = Timeout::zero()) {
        if (delay <= Timeout::zero()) return end("give back", "nack");
        return end("give back", with_time("nack", delay).data());
    }
    // The work can never be done: makes the message a dead letter.
    Expected<void> dead() { return end("bury", "dead"); }
    // Sets the lease to expire `time` from now.
    Expected<void> extend(Timeout time) {
        return command("extend lease", with_time("extend", time).data());
    }
    void give_back() noexcept;

private:
    friend class detail::LeaseFiles;
    using Words = std::array<char, 40>;

    static Words with_time(const char* word, Timeout time) noexcept {
        Words words{};
        std::snprintf(words.data(), words.size(), "%s %lldns", word,
                      static_cast<long long>(time.count()));
        return words;
    }

    Expected<void> command(const char* operation, std::string_view words) {
        if (!file_ || epoch_ != detail::process_epoch())
            return Error{ESTALE, operation, "the lease has ended"};
        auto fd = file_->fd();
        if (!fd) return std::move(fd).error();
        ssize_t written = 0;
        do {
            written =
                detail::retry_if_canceled([&] { return ::write(*fd, words.data(), words.size()); });
        } while (written < 0 && errno == EINTR);
        if (written == static_cast<ssize_t>(words.size())) return {};
        if (written >= 0) return Error{EPROTO, operation};
        Error error = detail::last_error(operation);
        if (error.code == ESTALE) {
            error.reason = "the lease has ended";
            give_back();
        }
        return error;
    }
    Expected<void> end(const char* operation, std::string_view words);

    Message message_;
    std::unique_ptr<detail::Reader> file_;
    std::shared_ptr<detail::LeaseFiles> files_;  // takes the file back for reuse
    std::uint64_t epoch_ = 0;
};

namespace detail {

// A channel's open framed/lease files: one for each lease, reused when the lease has ended. Any thread.
class LeaseFiles : public std::enable_shared_from_this<LeaseFiles> {
public:
    LeaseFiles(std::shared_ptr<const Directory> directory, const ChannelOptions& options)
        : directory_(std::move(directory)), options_(options) {}

    Expected<Lease> take(Timeout timeout) {
        auto file = take_file();
        auto taken = file->receive(1, timeout);
        if (!taken) {
            // Do not reuse a file that could not be opened, or whose channel is gone.
            const int code = taken.error().code;
            if (code == EAGAIN || code == ETIMEDOUT || code == EINTR) keep(std::move(file));
            return std::move(taken).error();
        }
        Lease lease;
        lease.message_ = std::move(taken->front());
        lease.file_ = std::move(file);
        lease.files_ = shared_from_this();
        lease.epoch_ = process_epoch();
        return lease;
    }

    void keep(std::unique_ptr<Reader> file) {
        const std::scoped_lock hold(mutex_);
        if (free_.size() < kMaxFree) free_.push_back(std::move(file));
    }

private:
    static constexpr std::size_t kMaxFree = 16;

    std::unique_ptr<Reader> take_file() {
        {
            const std::scoped_lock hold(mutex_);
            if (!free_.empty()) {
                auto file = std::move(free_.back());
                free_.pop_back();
                return file;
            }
        }
        constexpr ReaderFile kFile{"framed/lease", "open framed/lease", O_RDWR, true};
        return std::make_unique<Reader>(directory_, options_, kFile);
    }

    const std::shared_ptr<const Directory> directory_;
    const ChannelOptions options_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Reader>> free_;
};

}  // namespace detail

inline void Lease::give_back() noexcept {
    // Closing the file gives the message back.
    file_.reset();
    files_.reset();
}

inline Expected<void> Lease::end(const char* operation, std::string_view words) {
    auto ended = command(operation, words);
    if (!ended) return ended;
    files_->keep(std::move(file_));
    files_.reset();
    return {};
}

}  // namespace ipcfs
