// Loan: memory for the body of a message that is sent without a copy. Get it from Channel::loan(),
// write to bytes(), and pass it to Channel::send(). If the channel accepts pools, it is a chunk of a
// pool, which comes back when the receivers are done; otherwise it is fresh memory, sealed when sent.
//
// A loan belongs to the process that took it: a forked child can neither write nor send it. One
// thread at a time for each Loan.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <span>
#include <string>
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
inline bool shared_huge_pages() {
    static const bool allowed = [] {
        const std::string text =
            read_start(AT_FDCWD, "/sys/kernel/mm/transparent_hugepage/shmem_enabled");
        return !text.empty() && text.find("[never]") == text.npos &&
               text.find("[deny]") == text.npos;
    }();
    return allowed;
}

}  // namespace detail

class [[nodiscard]] Loan {
public:
    Loan() = default;
    Loan(Loan&& other) noexcept : held_(std::exchange(other.held_, {})) {}
    Loan& operator=(Loan&& other) noexcept {
        const Loan old(std::move(*this));
        held_ = std::exchange(other.held_, {});
        return *this;
    }
    // Gives it back unsent.
    ~Loan() {
        if (held_.pool) held_.pool->give_back(held_.taken);
    }

    explicit operator bool() const noexcept { return held_.data != nullptr; }
    // The memory of the body. Initially undefined in a pool (the chunk's last content), zero
    // otherwise. Empty if a send failed after sealing; the loan can still be sent.
    std::span<std::byte> bytes() const noexcept {
        return {held_.data, held_.data == nullptr ? 0 : held_.size};
    }
    std::byte* data() const noexcept { return held_.data; }
    std::size_t size() const noexcept { return held_.size; }
    std::size_t capacity() const noexcept { return held_.capacity; }
    bool pooled() const noexcept { return held_.pool != nullptr; }

    // Changes the size of the body. False, with nothing changed, above capacity() or once sealed.
    bool resize(std::size_t size) noexcept {
        if (size > held_.capacity || held_.data == nullptr) return false;
        held_.size = size;
        return true;
    }

    // Internal: Channel makes, seals and consumes loans.
    struct Access {
        static Loan pooled(std::shared_ptr<detail::SendPool> pool, detail::SendPool::Taken taken,
                           std::size_t size) {
            Loan loan;
            loan.held_.data = pool->at(taken.chunk);
            loan.held_.size = size;
            loan.held_.capacity = static_cast<std::size_t>(pool->shape().chunk_size);
            loan.held_.pool = std::move(pool);
            loan.held_.taken = taken;
            return loan;
        }
        static Expected<Loan> sealed(std::size_t size) {
            auto loan = unmapped(size);
            if (!loan || size == 0) return loan;
            Held& held = loan->held_;
            auto mapped =
                detail::map_shared(held.memory.get(), size, PROT_READ | PROT_WRITE, "loan");
            if (!mapped) return std::move(mapped).error();
            held.mapping = std::move(*mapped);
            // A forked child's copy of the mapping would prevent sealing.
            held.mapping.advise(MADV_DONTFORK);
            if (size >= detail::kHugeFrom) held.mapping.advise(MADV_HUGEPAGE);
            held.data = held.mapping.data();
            return loan;
        }
        // Memory to be filled by write(2) and sealed later.
        static Expected<Loan> unmapped(std::size_t size) {
            auto memory = detail::make_memfd("ipcfs-payload", size, 0, "loan");
            if (!memory) return std::move(memory).error();
            Loan loan;
            loan.held_.epoch = detail::process_epoch();
            loan.held_.size = loan.held_.capacity = size;
            loan.held_.data = &empty_;
            loan.held_.memory = std::move(*memory);
            return loan;
        }
        static int memory(const Loan& loan) noexcept { return loan.held_.memory.get(); }
        // Seals the memfd and sets its size as the daemon requires. May be called again.
        static Expected<int> seal(Loan& loan) {
            constexpr const char* kOperation = "seal";
            Held& held = loan.held_;
            if (!held.memory || held.epoch != detail::process_epoch())
                return Error{EINVAL, kOperation, "not a loan of this process"};
            const int fd = held.memory.get();
            if (held.data == nullptr) return fd;
            held.mapping.reset();
            held.data = nullptr;
            if (held.size != held.capacity && ::ftruncate(fd, static_cast<off_t>(held.size)) != 0)
                return detail::last_error(kOperation);
            if (::fcntl(fd, F_ADD_SEALS, detail::kSealsWhole) != 0)
                return detail::last_error(kOperation);
            return fd;
        }
        static detail::SendPool* pool(const Loan& loan) noexcept { return loan.held_.pool.get(); }
        static PayloadRef reference(const Loan& loan) noexcept {
            return loan.held_.pool->reference(loan.held_.taken, loan.held_.size);
        }
        // The sent message now owns the memory.
        static void sent(Loan& loan) noexcept {
            loan.held_.pool.reset();
            loan = Loan();
        }
    };

private:
    inline static std::byte empty_{};

    struct Held {
        std::byte* data = nullptr;
        std::size_t size = 0;
        std::size_t capacity = 0;
        std::shared_ptr<detail::SendPool> pool{};  // if pooled; else memory is used
        detail::SendPool::Taken taken{};
        detail::Fd memory{};  // if not pooled
        detail::Mapping mapping{};
        std::uint64_t epoch = 0;
    };
    Held held_;
};

}  // namespace ipcfs
