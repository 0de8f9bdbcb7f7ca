// Open files that show a text: one consistent snapshot an open, however many reads it takes; and ones
// that take a text (ctl, config). Nothing waits. Any thread.
#pragma once

#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include <payload/worker.hpp>

#include <tree/open_file.hpp>

namespace ipcfs::tree {

class TextFile final : public OpenFile {
public:
    using Make = std::function<std::string()>;
    // `data` is one write(2), whole. An errno, or 0.
    using Take = std::function<int(std::string_view data, const access::Subject& subject)>;

    // `make` is called at the first read, and at each read from position 0 after a write.
    // With a worker, `take` runs there, since it may take long, and the write waits for it.
    TextFile(Make make, Take take, access::Charge charge, payload::Worker* worker = nullptr)
        : make_(std::move(make)),
          take_(std::move(take)),
          charge_(std::move(charge)),
          worker_(worker) {}

    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override { operation.finish(); }
    void cancel_read(ReadOperation&, queue::Wake) noexcept override {}
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override {
        try_read(operation.request(), to);
    }
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
    Make make_;
    Take take_;
    struct Text {
        std::string text;
        access::Subject subject;
    };
    access::Charge charge_;
    payload::Worker* worker_;
    mutable std::mutex mutex_;
    std::deque<Text> pending_;  // writes whose operation has not started yet
    std::shared_ptr<const std::string> text_;
    bool written_ = false;
    bool torn_ = false;  // the text that was being read went with the daemon before
};

}  // namespace ipcfs::tree
