// Memory that is handed over: anonymous files (memfd_create(2)) and their seals. This folder keeps the
// large payloads of messages, the pools that they may come from, and the shared regions; it knows no
// channel. Raw system calls; any thread.
#pragma once

#include <cstdint>
#include <string>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::payload {

// An empty one that can be sealed. `name` is what /proc/PID/maps shows of it.
Result<Fd> make_memory(const std::string& name);

// Gives up all writing, for ever: F_SEAL_WRITE, SHRINK, GROW and SEAL. EPERM while somebody has a
// writable mapping (or the descriptor cannot add them). Returns the size in bytes.
Result<std::uint64_t> seal(int file);

// A client's descriptor. EPERM unless it is a memfd with (or that takes) the seals asked for; nothing
// is done to it that could wait for anybody: a descriptor may be one of a file system that never
// answers, or of our own mount.
enum class Sealing {
    kWhole,  // as seal() does
    kPool,  // F_SEAL_SHRINK, GROW, FUTURE_WRITE: who has mapped it writable keeps that, nobody else may
};
// Whether it is a memory file at all; the question costs nobody anything.
bool is_memory(int file) noexcept;
Result<std::uint64_t> check_sealed(int file, Sealing sealing);

// The same file, opened for reading only.
Result<Fd> reopen_read_only(int file);

// The same file, opened anew for reading and writing.
Result<Fd> reopen(int file);

// Whether anybody but `read_only` (our only descriptor of that memory, opened for reading) has it open
// or mapped. A question to the kernel's leases (fcntl(2), F_SETLEASE), which counts openers exactly, but
// for the descriptor that memfd_create(2) itself gave. SIGIO must be ignored: an open that comes in that
// moment sends one.
bool held_elsewhere(int read_only) noexcept;

// Bytes of memory that the machine could still give (MemAvailable, proc(5)).
std::uint64_t available_memory() noexcept;

// Moves the content of `from` to `to`, from its end to its start, cutting `from` shorter as it goes:
// mappings of what is gone fault, and there is never more than a little of it twice.
Result<void> move_content(int from, int to, std::uint64_t size);
// Copies `size` bytes from `offset` on to the start of `to`.
Result<void> copy_content(int from, std::uint64_t offset, int to, std::uint64_t size);

}  // namespace ipcfs::payload
