// Lease: a message that was taken on trial. It is the holder's for as long as the channel's setting
// `lease` says, and gone only when it was acknowledged; else it comes back to be delivered once more,
// flagged as redelivered, or after `max-deliveries` becomes a dead letter.
//
//     auto job = jobs.lease();
//     if (!job) return fail(job.error().message());
//     if (work(job->message().text())) job->ack();
//
// A Lease is moved, not copied; one thread at a time for each. It may outlive its Channel, and the
// message it gave may outlive both. In a forked child it is no lease: the child holds nothing.
#pragma once

#include <array>
#include <cerrno>
#include <chrono>
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
    // Gives it back. Does not wait for the daemon.
    ~Lease() { give_back(); }

    // Not ended yet, as far as is known here: it may have run out all the same.
    explicit operator bool() const noexcept { return file_ != nullptr; }
    // What was taken; stays when the lease has ended.
    const Message& message() const noexcept { return message_; }
    const Message* operator->() const noexcept { return &message_; }

    // Each of these but extend() ends the lease. ESTALE: it had ended already (it ran out, the channel was
    // purged or removed), so somebody else may have the message; nothing was done.

    // The work is done: the message is gone. In a durable channel for good when this returns.
    Expected<void> ack() { return end("acknowledge", "ack"); }
    // It could not be done: back to the front of the queue at once, or after `delay`.
    Expected<void> nack(Timeout delay = Timeout::zero()) {
        if (delay <= Timeout::zero()) return end("give back", "nack");
        return end("give back", with_time("nack", delay).data());
    }
    // It never can be done: a dead letter.
    Expected<void> dead() { return end("bury", "dead"); }
    // From now on so long in place of what was left.
    Expected<void> extend(Timeout time) {
        return tell("extend lease", with_time("extend", time).data());
    }
    // As the destructor.
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

    Expected<void> tell(const char* operation, std::string_view words) {
        if (!file_ || epoch_ != detail::process_epoch())
            return Error{ESTALE, operation, "the lease has ended"};
        auto fd = file_->fd();
        if (!fd) return std::move(fd).error();
        ssize_t written = 0;
        do {
            written =
                detail::again_if_undone([&] { return ::write(*fd, words.data(), words.size()); });
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
    std::shared_ptr<detail::LeaseFiles> files_;  // where the file goes when it is free
    std::uint64_t epoch_ = 0;
};

namespace detail {

// The open framed/lease of a channel: one for each lease, used again when that has ended. Any thread.
class LeaseFiles : public std::enable_shared_from_this<LeaseFiles> {
public:
    LeaseFiles(std::shared_ptr<const Directory> directory, const ChannelOptions& options)
        : directory_(std::move(directory)), options_(options) {}

    Expected<Lease> take(Timeout timeout) {
        auto file = free_one();
        auto taken = file->receive(1, timeout);
        if (!taken) {
            // One that could not be opened, or whose channel is gone, is of no use.
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
        if (free_.size() < kMostFree) free_.push_back(std::move(file));
    }

private:
    static constexpr std::size_t kMostFree = 16;

    std::unique_ptr<Reader> free_one() {
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
    // Closing the file is what gives it back.
    file_.reset();
    files_.reset();
}

inline Expected<void> Lease::end(const char* operation, std::string_view words) {
    auto told = tell(operation, words);
    if (!told) return told;
    files_->keep(std::move(file_));
    files_.reset();
    return {};
}

}  // namespace ipcfs
