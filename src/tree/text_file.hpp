// Open files that show a text: one consistent snapshot an open, however many reads it takes; and ones
// that take a text (ctl, config). Nothing waits. Any thread.
#pragma once

#include <deque>
#include <mutex>
#include <string>

#include <tree/file_kind.hpp>
#include <tree/operation.hpp>

namespace ipcfs::tree {

class TextFile final : public WaitingFile {
public:
    // The text is made at the first read, and at each read from position 0 after a write.
    TextFile(Tree& tree, const TextStyle& style, ChannelPtr channel, access::Charge charge)
        : tree_(tree), style_(style), channel_(std::move(channel)), charge_(std::move(charge)) {}

    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_write(WriteOperation& operation) noexcept override;
    std::uint32_t marks() const noexcept override {
        std::scoped_lock hold(mutex_);
        return text_ || torn_ ? kMidway : 0U;
    }
    int resume(std::uint32_t marks) noexcept override {
        torn_ = (marks & kMidway) != 0;
        return 0;
    }

private:
    struct Text {
        std::string text;
        access::Subject subject;
    };
    int take(std::string_view text, const access::Subject& by);

    Tree& tree_;
    const TextStyle style_;
    const ChannelPtr channel_;
    access::Charge charge_;
    mutable std::mutex mutex_;
    std::deque<Text> pending_;  // writes whose operation has not started yet
    std::shared_ptr<const std::string> text_;
    bool written_ = false;
    bool torn_ = false;  // the text that was being read went with the daemon before
};

}  // namespace ipcfs::tree
