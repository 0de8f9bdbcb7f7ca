// Open files that show a text: one consistent snapshot an open, however many reads it takes; and ones
// that take a text (ctl, config). Nothing waits. Any thread.
#pragma once

#include <functional>
#include <mutex>
#include <string>

#include <tree/open_file.hpp>

namespace ipcfs::tree {

class TextFile final : public OpenFile {
public:
    using Make = std::function<std::string()>;
    // `data` is one write(2), whole. An errno, or 0.
    using Take = std::function<int(std::string_view data, const access::Subject& subject)>;

    // `make` is called at the first read, and at each read from position 0 after a write.
    TextFile(Make make, Take take, access::Charge charge)
        : make_(std::move(make)), take_(std::move(take)), charge_(std::move(charge)) {}

    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override { operation.finish(); }
    void cancel_read(ReadOperation&, queue::Wake) noexcept override {}
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override {
        try_read(operation.request(), to);
    }

private:
    Make make_;
    Take take_;
    access::Charge charge_;
    std::mutex mutex_;
    std::shared_ptr<const std::string> text_;
    bool written_ = false;
};

}  // namespace ipcfs::tree
