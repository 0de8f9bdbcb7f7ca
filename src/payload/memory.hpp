// Anonymous memory files (memfd_create(2)) and their seals. This folder manages the large payloads
// of messages, the pools that chunks come from, and shared regions; it knows nothing of channels.
// Raw system calls; any thread.
#pragma once

#include <cstdint>
#include <string>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::payload {

// Creates an empty memory file that can be sealed. /proc/PID/maps shows `name`.
Result<Fd> make_memory(const std::string& name);

// Makes the file immutable: adds F_SEAL_WRITE, SHRINK, GROW and SEAL. EPERM while a writable
// mapping exists, or if the descriptor cannot add seals. Returns the size in bytes.
Result<std::uint64_t> seal(int file);

// Which seals check_sealed() requires.
enum class Sealing {
    kWhole,  // those of seal()
    kPool,   // F_SEAL_SHRINK, GROW, FUTURE_WRITE: existing writable mappings stay, no new ones
};
// Whether `file` is a memory file. Never blocks.
bool is_memory(int file) noexcept;
// Whether a memory file misses no seal. Takes no lock of the file.
bool is_sealed(int file, Sealing sealing) noexcept;
// Checks a client's descriptor and adds missing seals. EPERM unless it is a memfd that has or
// accepts them. Calls nothing that could block on the file: it may belong to a file system that
// never answers, or to our own mount. Returns the size in bytes.
Result<std::uint64_t> check_sealed(int file, Sealing sealing);

// Opens the same file again, read-only.
Result<Fd> reopen_read_only(int file);

// Opens the same file again, for reading and writing.
Result<Fd> reopen(int file);

// Whether another process or descriptor has the memory open or mapped. `read_only` must be our only
// descriptor of it, opened read-only. Asks for a lease (fcntl(2), F_SETLEASE): the kernel then
// counts all openers exactly, except the descriptor that memfd_create(2) returned. SIGIO must be
// ignored: an open at that moment sends it.
bool held_elsewhere(int read_only) noexcept;

// Memory that the machine has left, in bytes (MemAvailable, proc(5)); UINT64_MAX if unknown.
std::uint64_t available_memory() noexcept;

// Moves `size` bytes from `from` to `to`, starting at the end and truncating `from` as it goes. At
// most 4 MiB exist twice; accesses through old mappings of moved parts fault (SIGBUS).
Result<void> move_content(int from, int to, std::uint64_t size);
// Copies `size` bytes at `offset` of `from` to the start of `to`.
Result<void> copy_content(int from, std::uint64_t offset, int to, std::uint64_t size);

}  // namespace ipcfs::payload
