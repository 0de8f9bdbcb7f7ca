// Loan: memory for the body of a message that is sent without a copy. Get it from Channel::loan(),
// write to bytes(), and pass it to Channel::send(). If the channel accepts pools, it is a chunk of
// a pool, which comes back when the receivers are done; otherwise it is fresh memory, sealed when
// sent.
//
// A loan belongs to the process that took it: a forked child can neither write nor send it. One
// thread at a time for each Loan.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <span>
#include <utility>

#include <ipcfs/memory.hpp>
#include <ipcfs/process.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/send_pool.hpp>
#include <ipcfs/wait.hpp>

namespace ipcfs {

struct LoanOptions {
    Timeout timeout =
        kForever;  // how long to wait if all chunks are lent; then EAGAIN or ETIMEDOUT
    bool sealed_when_busy = false;  // take sealed memory instead of waiting
    bool pooled = true;             // false: sealed memory in any case
};

namespace detail {

inline constexpr unsigned kSealsWhole = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Whether this machine allows huge pages for shared memory on request.
inline bool shared_huge_pages() noexcept {
    static const bool allowed = [] {
        const Fd fd(
            ::open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", O_RDONLY | O_CLOEXEC));
        char text[128] = {};
        if (!fd || ::read(fd.get(), text, sizeof text - 1) <= 0) return false;
        return std::strstr(text, "[never]") == nullptr && std::strstr(text, "[deny]") == nullptr;
    }();
    return allowed;
}

}  // namespace detail

class [[nodiscard]] Loan {
public:
    // An empty loan.
    Loan() = default;
    Loan(Loan&& other) noexcept { swap(other); }
    Loan& operator=(Loan&& other) noexcept {
        Loan old(std::move(*this));
        swap(other);
        return *this;
    }
    // Gives it back unsent.
    ~Loan() {
        if (pool_) pool_->give_back(taken_);
    }

    explicit operator bool() const noexcept { return data_ != nullptr; }
    // The memory of the body. Initially undefined in a pool (the chunk's last content), zero
    // otherwise. Empty if a send failed after sealing; the loan can still be sent.
    std::span<std::byte> bytes() const noexcept { return {data_, data_ == nullptr ? 0 : size_}; }
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return size_; }
    std::size_t capacity() const noexcept { return capacity_; }
    bool pooled() const noexcept { return pool_ != nullptr; }

    // Changes the size of the body. False, with nothing changed, above capacity() or once sealed.
    bool resize(std::size_t size) noexcept {
        if (size > capacity_ || data_ == nullptr) return false;
        size_ = size;
        return true;
    }

    // Internal: Channel makes, seals and consumes loans.
    struct Access {
        static Loan pooled(std::shared_ptr<detail::SendPool> pool, detail::SendPool::Taken taken,
                           std::size_t size) {
            Loan loan;
            loan.data_ = pool->at(taken.chunk);
            loan.size_ = size;
            loan.capacity_ = static_cast<std::size_t>(pool->shape().chunk_size);
            loan.pool_ = std::move(pool);
            loan.taken_ = taken;
            return loan;
        }
        static Expected<Loan> sealed(std::size_t size) {
            constexpr const char* kOperation = "loan";
            auto memory = detail::make_memfd("ipcfs-payload", size, 0, kOperation);
            if (!memory) return std::move(memory).error();
            Loan loan;
            loan.epoch_ = detail::process_epoch();
            loan.size_ = loan.capacity_ = size;
            if (size != 0) {
                auto mapped =
                    detail::map_shared(memory->get(), size, PROT_READ | PROT_WRITE, kOperation);
                if (!mapped) return std::move(mapped).error();
                loan.mapping_ = std::move(*mapped);
                // A forked child's copy of the mapping would prevent sealing.
                loan.mapping_.advise(MADV_DONTFORK);
                if (size >= detail::kHugeFrom) loan.mapping_.advise(MADV_HUGEPAGE);
                loan.data_ = loan.mapping_.data();
            } else {
                loan.data_ = &empty_;
            }
            loan.memory_ = std::move(*memory);
            return loan;
        }
        // Memory to be filled by write(2) and sealed later.
        static Expected<Loan> unmapped(std::size_t size) {
            auto memory = detail::make_memfd("ipcfs-payload", size, 0, "loan");
            if (!memory) return std::move(memory).error();
            Loan loan;
            loan.epoch_ = detail::process_epoch();
            loan.size_ = loan.capacity_ = size;
            loan.data_ = &empty_;
            loan.memory_ = std::move(*memory);
            return loan;
        }
        static int memory(const Loan& loan) noexcept { return loan.memory_.get(); }
        // Seals the memfd and sets its size as the daemon requires. May be called again.
        static Expected<int> seal(Loan& loan) {
            constexpr const char* kOperation = "seal";
            if (!loan.memory_ || loan.epoch_ != detail::process_epoch())
                return Error{EINVAL, kOperation, "not a loan of this process"};
            if (loan.data_ == nullptr) return loan.memory_.get();
            const int fd = loan.memory_.get();
            loan.mapping_.reset();
            loan.data_ = nullptr;
            if (loan.size_ != loan.capacity_ &&
                ::ftruncate(fd, static_cast<off_t>(loan.size_)) != 0)
                return detail::last_error(kOperation);
            if (::fcntl(fd, F_ADD_SEALS, detail::kSealsWhole) != 0)
                return detail::last_error(kOperation);
            return fd;
        }
        static detail::SendPool* pool(const Loan& loan) noexcept { return loan.pool_.get(); }
        static PayloadRef reference(const Loan& loan) noexcept {
            return loan.pool_->reference(loan.taken_, loan.size_);
        }
        // The sent message now owns the memory.
        static void sent(Loan& loan) noexcept {
            loan.pool_.reset();
            loan = Loan();
        }
    };

private:
    void swap(Loan& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(pool_, other.pool_);
        std::swap(taken_, other.taken_);
        std::swap(memory_, other.memory_);
        std::swap(mapping_, other.mapping_);
        std::swap(epoch_, other.epoch_);
    }

    inline static std::byte empty_{};

    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    std::shared_ptr<detail::SendPool> pool_;  // if pooled; else memory_ is used
    detail::SendPool::Taken taken_;
    detail::Fd memory_;  // if not pooled
    detail::Mapping mapping_;
    std::uint64_t epoch_ = 0;
};

}  // namespace ipcfs
