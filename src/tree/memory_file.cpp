// Memory as files. Any thread.
#include <algorithm>

#include <payload/memory.hpp>

#include <tree/memory_file.hpp>

namespace ipcfs::tree {

// ---- payloads -----------------------------------------------------------------------------------

Result<std::shared_ptr<OpenFile>> PayloadFile::open(payload::PayloadPtr payload,
                                                    payload::Store& payloads, Executor& worker,
                                                    const access::Subject& subject) {
    access::Account& account = payloads.ledger().account(subject.uid);
    auto charge = charge_open(account);
    if (!charge) return charge.error();
    access::Charge memory;
    if (payload->kind == PayloadKind::kPooled) {
        auto room = payloads.budget().take(account, payload->size);
        if (!room) return room.error();
        memory = std::move(*room);
    }
    return std::shared_ptr<OpenFile>(std::make_shared<PayloadFile>(
        std::move(payload), payloads, worker, std::move(*charge), std::move(memory)));
}

PayloadFile::PayloadFile(payload::PayloadPtr payload, payload::Store& payloads, Executor& worker,
                         access::Charge charge, access::Charge memory)
    : payload_(std::move(payload)),
      payloads_(payloads),
      worker_(worker),
      charge_(std::move(charge)),
      memory_charge_(std::move(memory)) {
    payload_->opens.fetch_add(1, std::memory_order_relaxed);
}

PayloadFile::~PayloadFile() {
    payload_->opens.fetch_sub(1, std::memory_order_relaxed);
    if (copy_) {
        payloads_.let_go(std::move(copy_), payload_->size, std::move(memory_charge_));
    }
}

Outcome PayloadFile::try_gate(int& error) noexcept {
    error = 0;
    return payload_->kind == PayloadKind::kPooled && !copy_ ? Outcome::kWait : Outcome::kDone;
}

void PayloadFile::start_gate(GateOperation& operation) noexcept {
    // The operation keeps itself and this file until it is finished.
    worker_.add(charge_.uid(), [this, &operation] { operation.finish_with(copy()); });
}

int PayloadFile::copy() noexcept {
    auto memory = payload::make_memory("ipcfs-copy-" + std::to_string(payload_->id));
    if (!memory) return memory.error().code;
    auto copied =
        payload::copy_content(payload_->file(), payload_->offset(), memory->get(), payload_->size);
    if (!copied) return copied.error().code;
    auto sealed = payload::seal(memory->get());
    if (!sealed) return sealed.error().code;
    auto readable = payload::reopen_read_only(memory->get());
    if (!readable) return readable.error().code;
    copy_ = std::move(*readable);
    payloads_.counters.sealed_copies.fetch_add(1, std::memory_order_relaxed);
    return 0;
}

Traits PayloadFile::traits() const noexcept {
    Traits traits;
    traits.caching = Traits::Caching::kConstant;
    // Copies differ from open to open, and the kernel wants one backing for all opens of a file.
    if (!copy_) traits.backing = Backing{payload_->file(), true};
    return traits;
}

Outcome PayloadFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    if (request.offset < payload_->size) {
        std::uint64_t left = payload_->size - request.offset;
        to.file = {copy_ ? copy_.get() : payload_->file(), request.offset,
                   static_cast<std::size_t>(std::min<std::uint64_t>(request.size, left))};
        to.payload = payload_;
    }
    return Outcome::kDone;
}

// ---- regions ------------------------------------------------------------------------------------

Result<void> resize_region(Shares& shares, Region& region, channel::Endpoint& channel,
                           std::uint64_t size) {
    auto resized = shares.resize(region, size, channel.settings().max_payload);
    if (!resized) channel.note_error(resized.error().operation);
    return resized;
}

int RegionFile::resize(std::uint64_t size) noexcept {
    auto resized = resize_region(shares_, *region_, *channel_, size);
    return resized ? 0 : resized.error().code;
}

Outcome RegionFile::try_read(const ReadRequest& request, Delivery& to) noexcept {
    if (region_->revoked()) {
        to.error = ESTALE;
        return Outcome::kDone;
    }
    std::uint64_t size = region_->size();
    if (request.offset < size) {
        to.file = {
            region_->memory(), request.offset,
            static_cast<std::size_t>(std::min<std::uint64_t>(request.size, size - request.offset))};
        to.region = region_;
    }
    return Outcome::kDone;
}

Outcome RegionFile::try_write(const WriteRequest& request, queue::Batch&, int& error) noexcept {
    const std::uint64_t at = request.appends ? region_->size() : request.offset;
    auto written = shares_.write(*region_, request.data, at, channel_->settings().max_payload);
    error = written ? 0 : written.error().code;
    return Outcome::kDone;
}

}  // namespace ipcfs::tree
