// Files and directories as the store needs them: names that are durable, whole files at once. Raw
// system calls, EINTR retried, always CLOEXEC. Any thread; all of it blocks.
#pragma once

#include <string>
#include <vector>

#include <store/format.hpp>

#include <base/fd.hpp>
#include <base/result.hpp>

namespace ipcfs::store {

Result<Fd> open_file(const std::string& path, int flags, int mode = 0600);
Result<void> make_directory(const std::string& path);  // fine if it is there
Result<void> sync_directory(const std::string& path);
Result<void> sync_data(int file, const std::string& path);  // fdatasync(2)
Result<void> rename_file(const std::string& from, const std::string& to);
Result<void> remove_file(const std::string& path);  // fine if it is gone
bool exists(const std::string& path);
// Names of entries, without . and .. .
Result<std::vector<std::string>> list_directory(const std::string& path);
Result<std::vector<std::byte>> read_file(const std::string& path);
Result<void> write_all(int file, Bytes data, const std::string& path);
// Under another name first, synced, then renamed: afterwards it is there whole or as before.
Result<void> replace_file(const std::string& path, Bytes data);
// Allocates `size` bytes from the start.
Result<void> allocate(int file, std::size_t size, const std::string& path);
// Removes a directory and what is in it, as far as it can.
void remove_tree(const std::string& path);

}  // namespace ipcfs::store
