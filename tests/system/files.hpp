// System calls on files of the tree as tests want them: one call, its result or -errno, nothing
// retried. Reentrant: also for the threads and children of a test.
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

// Letters that differ from place to place, and from those of other seeds.
std::string text_of(std::size_t size, unsigned seed = 1);

struct Read {
    long result = 0;  // bytes, 0 at the end of the file, or -errno
    std::string data;
};

// An empty Fd and errno when it fails.
Fd open_file(const std::string& path, int flags);
// The errno of an open that must fail, 0 if it succeeded.
int open_error(const std::string& path, int flags);
// Bytes written by one write(2), or -errno.
long write_to(int fd, std::string_view bytes);
// One read(2) of at most `size` bytes.
Read read_from(int fd, std::size_t size = 1 << 20);
// Reads again after EINTR, as cat, bash and Python do.
Read read_patiently(int fd, std::size_t size = 1 << 20);
// Whether it is the kernel's word for what it was just giving to a daemon that was killed, over io_uring:
// the ring is taken down (ECANCELED), or there is no memory any more to copy it to (EINTR, EAGAIN).
bool is_undone(long result);
// The poll(2) events of one descriptor within `milliseconds`, 0 when none came.
short poll_one(int fd, short events, int milliseconds);

// The whole file; empty when it cannot be opened.
std::string slurp(const std::string& path);
// The value behind `key ` in lines of `key value`; empty when there is no such line.
std::string value_of(const std::string& lines, std::string_view key);

// A header/data listing: a row is column name -> field.
using Row = std::map<std::string, std::string>;
std::vector<Row> parse_table(const std::string& text);

}  // namespace ipcfs::test
