// Batch: messages put together to be sent as one: all of them or none, in this order, by one write. Also
// the fast way to send many small ones. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include <ipcfs/frame.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/result.hpp>

namespace ipcfs {

class Batch {
public:
    // All of a batch with their headers (96 bytes each, and the extensions), bytes.
    static constexpr std::size_t kMaxBytes = detail::kMaxWrite;

    // Adds a message; the timeout in `options` does not matter. EMSGSIZE, with nothing added, when the
    // batch is full (send it and clear()), or where the message alone would not fit into one: large
    // ones go by themselves. EINVAL: a type or extensions that cannot be sent.
    Expected<void> add(std::span<const std::byte> body, const SendOptions& options = {}) {
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

    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    // Keeps the memory.
    void clear() noexcept {
        frames_.clear();
        count_ = 0;
    }
    std::span<const std::byte> frames() const noexcept { return frames_; }

private:
    std::vector<std::byte> frames_;
    std::size_t count_ = 0;
};

}  // namespace ipcfs
