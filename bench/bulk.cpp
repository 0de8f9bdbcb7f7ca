// Ring, socket, memfds.
#include "bulk.hpp"

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstring>
#include <linux/futex.h>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "processes.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::size_t kHugePage = 2 << 20;

using Words = std::uint64_t __attribute__((vector_size(64), aligned(8), may_alias));

std::span<std::byte> map(int fd, std::size_t size, int protection) {
    void* at = mmap(nullptr, size, protection, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) must(-1, "mmap");
    return {static_cast<std::byte*>(at), size};
}

Fd make_memfd(std::size_t size) {
    Fd memory(static_cast<int>(must(memfd_create("ipcfs-bench", MFD_CLOEXEC), "memfd_create")));
    must(ftruncate(memory.get(), static_cast<off_t>(size)), "ftruncate");
    return memory;
}

// --- ring

// One side writes `made`, the other `taken`: messages so far. A counter is a futex as well.
struct RingState {
    alignas(64) std::atomic<std::uint32_t> made{0};
    alignas(64) std::atomic<std::uint32_t> taken{0};
    alignas(64) std::atomic<std::uint32_t> taker_sleeps{0};
    alignas(64) std::atomic<std::uint32_t> maker_sleeps{0};
};

void bump(std::atomic<std::uint32_t>& counter, std::atomic<std::uint32_t>& sleeps) {
    counter.fetch_add(1);  // sequentially consistent, as is `sleeps`: one of the two sees the other
    if (sleeps.load() == 0) return;
    syscall(SYS_futex, &counter, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

// Until `counter` is not `old`.
void await(std::atomic<std::uint32_t>& counter, std::uint32_t old,
           std::atomic<std::uint32_t>& sleeps) {
    constexpr unsigned kSpins = 2000;  // some 20 us
    for (unsigned spin = 0; spin < kSpins; ++spin) {
        if (counter.load(std::memory_order_acquire) != old) return;
        __builtin_ia32_pause();
    }
    sleeps.store(1);
    while (counter.load() == old) {
        syscall(SYS_futex, &counter, FUTEX_WAIT, old, nullptr, nullptr, 0);
    }
    sleeps.store(0);
}

class Ring final : public BulkLink {
public:
    Ring(std::size_t size, unsigned chunks)
        : size_(size),
          chunks_(chunks),
          state_memory_(sizeof(RingState), false),
          memory_(size * chunks, true) {
        state_ = new (state_memory_.bytes().data()) RingState;
    }

    std::unique_ptr<BulkEnd> open_sender() override {
        return end([this](std::byte value) {
            const std::uint32_t made = state_->made.load(std::memory_order_relaxed);
            for (std::uint32_t taken; made - (taken = state_->taken.load()) == chunks_;) {
                await(state_->taken, taken, state_->maker_sleeps);
            }
            fill(chunk(made), value);
            bump(state_->made, state_->taker_sleeps);
        });
    }
    std::unique_ptr<BulkEnd> open_receiver() override {
        return end([this](std::byte value) {
            const std::uint32_t taken = state_->taken.load(std::memory_order_relaxed);
            if (state_->made.load() == taken) await(state_->made, taken, state_->taker_sleeps);
            check(chunk(taken), value);
            bump(state_->taken, state_->maker_sleeps);
        });
    }

private:
    template <class One>
    class End final : public BulkEnd {
    public:
        explicit End(One one) : one_(std::move(one)) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) one_(nth(value, i));
        }

    private:
        One one_;
    };
    template <class One>
    static std::unique_ptr<BulkEnd> end(One one) {
        return std::make_unique<End<One>>(std::move(one));
    }
    std::span<std::byte> chunk(std::uint32_t message) const {
        return memory_.bytes().subspan(message % chunks_ * size_, size_);
    }

    const std::size_t size_;
    const unsigned chunks_;  // a power of two, for the counters' overflow
    const SharedMemory state_memory_, memory_;
    RingState* state_ = nullptr;
};

// --- socket

// The process' own memory, on huge pages where there are some.
class OwnMemory {
public:
    explicit OwnMemory(std::size_t size) {
        const std::size_t whole = (size + kHugePage - 1) / kHugePage * kHugePage;
        void* at = mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) must(-1, "mmap");
        madvise(at, whole, MADV_HUGEPAGE);
        whole_ = {static_cast<std::byte*>(at), whole};
        bytes = whole_.first(size);
    }
    OwnMemory(const OwnMemory&) = delete;
    OwnMemory& operator=(const OwnMemory&) = delete;
    ~OwnMemory() { munmap(whole_.data(), whole_.size()); }
    std::span<std::byte> bytes;

private:
    std::span<std::byte> whole_;
};

class StreamSocket final : public BulkLink {
public:
    explicit StreamSocket(std::size_t size) : size_(size) {
        int ends[2];
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "socketpair");
        ends_[0].reset(ends[0]);
        ends_[1].reset(ends[1]);
        // As much as is allowed without being root; more brings nothing.
        const int room = 4 << 20;
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    }

    std::unique_ptr<BulkEnd> open_sender() override {
        return std::make_unique<Sender>(ends_[0].get(), size_);
    }
    std::unique_ptr<BulkEnd> open_receiver() override {
        return std::make_unique<Receiver>(ends_[1].get(), size_);
    }

private:
    struct Sender final : BulkEnd {
        Sender(int socket, std::size_t size) : socket_(socket), memory_(size) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                fill(memory_.bytes, nth(value, i));
                for (std::span<const std::byte> rest = memory_.bytes; !rest.empty();) {
                    const auto sent = must(write(socket_, rest.data(), rest.size()), "write");
                    rest = rest.subspan(static_cast<std::size_t>(sent));
                }
            }
        }
        int socket_;
        OwnMemory memory_;
    };
    struct Receiver final : BulkEnd {
        Receiver(int socket, std::size_t size) : socket_(socket), memory_(size) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                for (std::span<std::byte> rest = memory_.bytes; !rest.empty();) {
                    const auto got = must(read(socket_, rest.data(), rest.size()), "read");
                    if (got == 0) throw std::runtime_error("the sender is gone");
                    rest = rest.subspan(static_cast<std::size_t>(got));
                }
                check(memory_.bytes, nth(value, i));
            }
        }
        int socket_;
        OwnMemory memory_;
    };
    const std::size_t size_;
    Fd ends_[2];
};

// --- fresh memfds

class FreshMemfd final : public BulkLink {
public:
    FreshMemfd(std::size_t size, bool huge) : size_(size), huge_(huge) {
        int ends[2];
        must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
        ends_[0].reset(ends[0]);
        ends_[1].reset(ends[1]);
        // Few in flight, as in the ring: with many the memory of one is cold when it comes back.
        const int room = 1;
        setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    }
    std::unique_ptr<BulkEnd> open_sender() override {
        return std::make_unique<Sender>(ends_[0].get(), size_, huge_);
    }
    std::unique_ptr<BulkEnd> open_receiver() override {
        return std::make_unique<Receiver>(ends_[1].get(), size_);
    }

private:
    // The control message that carries one descriptor.
    struct Packet {
        char one = 0;
        iovec data{&one, 1};
        alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
        msghdr header{};
        Packet() {
            header.msg_iov = &data;
            header.msg_iovlen = 1;
            header.msg_control = control;
            header.msg_controllen = sizeof control;
        }
    };
    struct Sender final : BulkEnd {
        Sender(int socket, std::size_t size, bool huge)
            : socket_(socket), size_(size), huge_(huge) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                const Fd memory = make_memfd(size_);
                const auto bytes = map(memory.get(), size_, PROT_READ | PROT_WRITE);
                if (huge_) madvise(bytes.data(), bytes.size(), MADV_HUGEPAGE);
                fill(bytes, nth(value, i));
                munmap(bytes.data(), bytes.size());
                Packet packet;
                cmsghdr* part = CMSG_FIRSTHDR(&packet.header);
                part->cmsg_level = SOL_SOCKET;
                part->cmsg_type = SCM_RIGHTS;
                part->cmsg_len = CMSG_LEN(sizeof(int));
                const int fd = memory.get();
                std::memcpy(CMSG_DATA(part), &fd, sizeof fd);
                must(sendmsg(socket_, &packet.header, MSG_NOSIGNAL), "sendmsg");
            }
        }
        int socket_;
        std::size_t size_;
        bool huge_;
    };
    struct Receiver final : BulkEnd {
        Receiver(int socket, std::size_t size) : socket_(socket), size_(size) {}
        void run(unsigned count, std::byte value) override {
            for (unsigned i = 0; i < count; ++i) {
                Packet packet;
                must(recvmsg(socket_, &packet.header, MSG_CMSG_CLOEXEC), "recvmsg");
                const cmsghdr* part = CMSG_FIRSTHDR(&packet.header);
                if (part == nullptr) throw std::runtime_error("no descriptor came");
                int fd = -1;
                std::memcpy(&fd, CMSG_DATA(part), sizeof fd);
                const Fd memory(fd);
                const auto bytes = map(memory.get(), size_, PROT_READ);
                check(bytes, nth(value, i));
                munmap(bytes.data(), bytes.size());
            }
        }
        int socket_;
        std::size_t size_;
    };
    const std::size_t size_;
    const bool huge_;
    Fd ends_[2];
};

}  // namespace

void fill(std::span<std::byte> memory, std::byte value) {
    std::memset(memory.data(), std::to_integer<int>(value), memory.size());
}

// Compiled for several instruction sets: the figure must be the memory's, not the additions'.
__attribute__((target_clones("avx512f", "avx2", "default"))) std::uint64_t sum(
    std::span<const std::byte> memory) {
    const auto* at = reinterpret_cast<const Words*>(memory.data());
    const std::size_t count = memory.size() / sizeof(Words);
    Words sums[4] = {};
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        for (std::size_t lane = 0; lane < 4; ++lane) sums[lane] += at[i + lane];
    }
    for (; i < count; ++i) sums[0] += at[i];
    sums[0] += sums[1] + sums[2] + sums[3];
    std::uint64_t all = 0;
    for (std::size_t word = 0; word < 8; ++word) all += sums[0][word];
    return all;
}

std::uint64_t sum_of(std::size_t size, std::byte value) {
    return std::to_integer<std::uint64_t>(value) * 0x0101010101010101U * (size / 8);
}

void check(std::span<const std::byte> message, std::byte value) {
    if (sum(message) != sum_of(message.size(), value)) {
        throw std::runtime_error("a message is not what was sent");
    }
}

SharedMemory::SharedMemory(std::size_t size, bool huge) {
    const std::size_t whole = huge ? (size + kHugePage - 1) / kHugePage * kHugePage : size;
    fd_ = make_memfd(whole);
    bytes_ = map(fd_.get(), whole, PROT_READ | PROT_WRITE);
    if (huge) madvise(bytes_.data(), bytes_.size(), MADV_HUGEPAGE);
    bytes_ = bytes_.first(size);
}

SharedMemory::~SharedMemory() {
    munmap(bytes_.data(), bytes_.size());
}

std::unique_ptr<BulkLink> open_ring(std::size_t size, unsigned chunks) {
    return std::make_unique<Ring>(size, chunks);
}
std::unique_ptr<BulkLink> open_stream_socket(std::size_t size) {
    return std::make_unique<StreamSocket>(size);
}
std::unique_ptr<BulkLink> open_fresh_memfd(std::size_t size, bool huge) {
    return std::make_unique<FreshMemfd>(size, huge);
}

}  // namespace ipcfs::bench
