// Open files whose content is memory: payload/<id> and the regions of share/. A door that can lets the
// client use that memory directly (Traits::backing). Any thread.
#pragma once

#include <mutex>

#include <payload/payload.hpp>

#include <base/executor.hpp>
#include <tree/operation.hpp>
#include <tree/shares.hpp>

namespace ipcfs::tree {

// A sealed payload, read-only and constant. The open of a pooled one waits until the worker has made a sealed copy.
class PayloadFile final : public WaitingFile, public std::enable_shared_from_this<PayloadFile> {
public:
    // EDQUOT; ENOSPC for a copy.
    static Result<std::shared_ptr<OpenFile>> open(payload::PayloadPtr payload,
                                                  payload::Store& payloads, Executor& worker,
                                                  const access::Subject& subject);
    PayloadFile(payload::PayloadPtr payload, payload::Store& payloads, Executor& worker,
                access::Charge charge, access::Charge memory);
    ~PayloadFile() override;

    Traits traits() const noexcept override;
    Outcome try_read(const ReadRequest& request, Delivery& to) noexcept override;
    Outcome try_gate(int& error) noexcept override;
    void start_gate(GateOperation& operation) noexcept override;

private:
    int copy() noexcept;

    payload::PayloadPtr payload_;
    payload::Store& payloads_;
    Executor& worker_;
    access::Charge charge_, memory_charge_;
    Fd copy_;  // of a pooled one
};

// Shares::resize within the channel's `max-payload`; the channel keeps why it failed.
Result<void> resize_region(Shares& shares, Region& region, channel::Endpoint& channel,
                           std::uint64_t size);

class RegionFile final : public OpenFile {
public:
    RegionFile(RegionPtr region, Shares& shares, std::shared_ptr<channel::Endpoint> channel,
               access::Charge charge)
        : region_(std::move(region)),
          shares_(shares),
          channel_(std::move(channel)),
          charge_(std::move(charge)) {}

    Traits traits() const noexcept override {
        return {Backing{region_->memory(), false}, Traits::Caching::kWhileOpen};
    }
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
    std::shared_ptr<channel::Endpoint> channel_;
    access::Charge charge_;
};

}  // namespace ipcfs::tree
