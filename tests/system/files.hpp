// System calls on files of the tree for tests: each makes one call and returns its result or
// -errno, without retries. Reentrant, so threads and children of a test may use them.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <base/fd.hpp>

namespace ipcfs::test {

constexpr std::size_t kLargestMessage = 1044480;  // 1 MiB less 4 KiB
constexpr std::size_t kMiB = std::size_t{1} << 20;

// Ordinary users of the tests.
constexpr uid_t kAlice = 1001;
constexpr uid_t kBob = 1002;

// Pseudo-random letters that depend on position and seed.
std::string text_of(std::size_t size, unsigned seed = 1);

struct Read {
    long result = 0;  // bytes, 0 at the end of the file, or -errno
    std::string data;
};

// Opens a file; on an error returns an empty Fd and sets errno.
Fd open_file(const std::string& path, int flags);
// The errno of an open that should fail; 0 if it succeeded.
int open_error(const std::string& path, int flags);
// Writes once with write(2). Returns the bytes written, or -errno.
long write_to(int fd, std::string_view bytes);
// Reads at most `size` bytes with one read(2).
Read read_from(int fd, std::size_t size = 1 << 20);
// Like read_from(), but retries after EINTR, as cat, bash and Python do.
Read read_patiently(int fd, std::size_t size = 1 << 20);
// Whether `result` means that the kernel dropped the request because the daemon was being killed,
// over io_uring: the ring is taken down (ECANCELED), or the request cannot be copied to a dead
// process (EINTR, EAGAIN).
bool is_undone(long result);
// Polls one descriptor for `milliseconds`. Returns the events, 0 on timeout.
short poll_one(int fd, short events, int milliseconds);

// Reads a whole file; empty if it cannot be opened.
std::string slurp(const std::string& path);
// The value of `key` in lines of the form `key value`; empty if there is none.
std::string value_of(const std::string& lines, std::string_view key);

// A row of a header/data table: column name -> field.
using Row = std::map<std::string, std::string>;
std::vector<Row> parse_table(const std::string& text);

}  // namespace ipcfs::test
