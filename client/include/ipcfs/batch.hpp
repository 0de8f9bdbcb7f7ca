// Batch: messages that one write sends in order, all or none. Also the fast way to send many small
// messages, or chunks of a pool that are quick to fill. One thread at a time.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include <ipcfs/control.hpp>
#include <ipcfs/frame.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs {

class Batch {
public:
    // The largest batch in bytes, including headers (96 bytes each) and extensions.
    static constexpr std::size_t kMaxBytes = detail::kMaxWrite;

    // Adds a message; ignores the timeout in `options`. EMSGSIZE if the batch is full (send it,
    // then clear()) or the message can never fit in a batch (send it alone). EINVAL: a type or
    // extensions that cannot be sent. On an error, nothing is added.
    Expected<void> add(std::span<const std::byte> body, const SendOptions& options = {}) {
        if (detail::has_texts(options)) {
            std::vector<std::byte> storage;
            auto whole = detail::with_texts(options, storage);
            return whole ? add(body, *whole) : std::move(whole).error();
        }
        FrameHeader header = detail::header_for(options);
        const std::size_t length = sizeof header + options.extensions.size() + body.size();
        if (length > kMaxBytes - frames_.size()) return Error{EMSGSIZE, "add to batch"};
        if (!encode(header, options.extensions, body, frames_))
            return Error{EINVAL, "add to batch"};
        ++count_;
        return {};
    }
    Expected<void> add(std::string_view text, const SendOptions& options = {}) {
        return add(std::as_bytes(std::span(text.data(), text.size())), options);
    }

    // Adds a filled chunk of a pool. The batch then owns it, and gives it back unless it is sent.
    // Errors as above; EINVAL also for a loan that is not pooled(): send sealed memory alone. On an
    // error, the caller keeps the loan.
    Expected<void> add(Loan&& loan, const SendOptions& options = {}) {
        constexpr const char* kOperation = "add to batch";
        const detail::SendPool* pool = Loan::Access::pool(loan);
        if (pool == nullptr || pool->inherited())
            return Error{EINVAL, kOperation, "not a pooled loan of this process"};
        if (detail::has_texts(options)) {
            std::vector<std::byte> storage;
            auto whole = detail::with_texts(options, storage);
            return whole ? add(std::move(loan), *whole) : std::move(whole).error();
        }
        const PayloadRef ref = Loan::Access::reference(loan);
        const FrameHeader header = detail::header_for(options);
        std::vector<std::byte> extensions;
        append_extension(extensions, ExtensionType::kPayload, std::as_bytes(std::span(&ref, 1)));
        extensions.insert(extensions.end(), options.extensions.begin(), options.extensions.end());
        if (sizeof header + extensions.size() > kMaxBytes - frames_.size())
            return Error{EMSGSIZE, kOperation};
        loans_.reserve(loans_.size() + 1);
        if (!encode(header, extensions, {}, frames_)) return Error{EINVAL, kOperation};
        loans_.push_back(std::move(loan));
        ++count_;
        return {};
    }

    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    // Removes all messages and gives back their loans; keeps the buffer.
    void clear() noexcept {
        frames_.clear();
        loans_.clear();
        count_ = 0;
    }
    bool has_loans() const noexcept { return !loans_.empty(); }
    std::span<const std::byte> frames() const noexcept { return frames_; }
    // Internal: the sent messages now own the loans.
    void sent() noexcept {
        for (Loan& loan : loans_) Loan::Access::sent(loan);
        clear();
    }

private:
    std::vector<std::byte> frames_;
    std::vector<Loan> loans_;
    std::size_t count_ = 0;
};

}  // namespace ipcfs
