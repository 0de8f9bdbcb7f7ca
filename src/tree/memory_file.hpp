// Open files whose content is memory: payload/<id> and the regions of share/. A door that can lets the
// client use that memory directly (backing()). Any thread.
#pragma once

#include <mutex>

#include <payload/payload.hpp>
#include <payload/worker.hpp>

#include <tree/open_file.hpp>
#include <tree/shares.hpp>

namespace ipcfs::tree {

// What they have in common: positions, and nothing that waits.
class MemoryFile : public OpenFile {
public:
    unsigned poll(std::unique_ptr<channel::PollTicket> ticket) noexcept override;
    void start_read(ReadOperation& operation) noexcept override { operation.finish(); }
    void cancel_read(ReadOperation&, queue::Wake) noexcept override {}
    void finish_read(ReadOperation& operation, Delivery& to) noexcept override {
        try_read(operation.request(), to);
    }
};

// A sealed payload: read-only, for ever the same. Of a pooled one a sealed copy is made at open, by the
// worker (the open waits at its gate).
class PayloadFile final : public MemoryFile, public std::enable_shared_from_this<PayloadFile> {
public:
    // EDQUOT; ENOSPC for a copy.
    static Result<std::shared_ptr<OpenFile>> open(payload::PayloadPtr payload,
                                                  payload::Store& payloads, payload::Worker& worker,
                                                  const access::Subject& subject);
    PayloadFile(payload::PayloadPtr payload, payload::Store& payloads, payload::Worker& worker,
                access::Charge charge, access::Charge memory);
    ~PayloadFile() override;

    std::optional<Backing> backing() noexcept override;
    Caching caching() const noexcept override { return Caching::kConstant; }
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest&, queue::Batch&, int& error) noexcept override {
        error = EROFS;
        return Outcome::kDone;
    }
    Outcome try_gate(int& error) noexcept override;
    void start_gate(GateOperation& operation) noexcept override;

private:
    int copy() noexcept;

    payload::PayloadPtr payload_;
    payload::Store& payloads_;
    payload::Worker& worker_;
    access::Charge charge_, memory_charge_;
    Fd copy_;  // of a pooled one
};

// Shares::resize within the channel's `max-payload`; the channel keeps why it failed.
Result<void> resize_region(Shares& shares, Region& region, channel::Channel& channel,
                           std::uint64_t size);

class RegionFile final : public MemoryFile {
public:
    RegionFile(RegionPtr region, Shares& shares, std::shared_ptr<channel::Channel> channel,
               access::Charge charge)
        : region_(std::move(region)),
          shares_(shares),
          channel_(std::move(channel)),
          charge_(std::move(charge)) {}

    std::optional<Backing> backing() noexcept override { return Backing{region_->memory(), false}; }
    Caching caching() const noexcept override { return Caching::kWhileOpen; }
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_write(const WriteRequest& request, queue::Batch& pending,
                      int& error) noexcept override;
    int allocate(std::uint64_t size) noexcept override {
        return size > region_->size() ? resize(size) : 0;
    }
    int resize(std::uint64_t size) noexcept;

private:
    RegionPtr region_;
    Shares& shares_;
    std::shared_ptr<channel::Channel> channel_;
    access::Charge charge_;
};

}  // namespace ipcfs::tree
