// System calls on files. Any thread.
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>

#include <store/files.hpp>

namespace ipcfs::store {

namespace fs = std::filesystem;

namespace {

template <class F>
auto retried(F&& call) {
    for (;;) {
        const auto result = call();
        if (result >= 0 || errno != EINTR) return result;
    }
}

}  // namespace

Result<Fd> open_file(const std::string& path, int flags, int mode) {
    const int fd = retried([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
    if (fd < 0) return errno_fault("open " + path);
    return Fd(fd);
}

Result<void> make_directory(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
    return errno_fault("mkdir " + path);
}

Result<void> sync_directory(const std::string& path) {
    auto fd = open_file(path, O_RDONLY | O_DIRECTORY);
    if (!fd) return fd.error();
    if (retried([&] { return ::fsync(fd->get()); }) != 0) return errno_fault("fsync " + path);
    return {};
}

Result<void> sync_data(int file, const std::string& path) {
    if (retried([&] { return ::fdatasync(file); }) != 0) return errno_fault("fdatasync " + path);
    return {};
}

Result<void> rename_file(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0) return errno_fault("rename " + from + " to " + to);
    return {};
}

Result<void> remove_file(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    return errno_fault("unlink " + path);
}

bool exists(const std::string& path) {
    std::error_code failed;
    return fs::exists(fs::symlink_status(path, failed));
}

Result<std::vector<std::string>> list_directory(const std::string& path) {
    std::error_code failed;
    std::vector<std::string> names;
    for (fs::directory_iterator each(path, failed); !failed && each != fs::directory_iterator();
         each.increment(failed))
        names.push_back(each->path().filename());
    if (failed) return Fault{failed.value(), "list " + path};
    return names;
}

Result<std::vector<std::byte>> read_file(const std::string& path) {
    auto fd = open_file(path, O_RDONLY);
    if (!fd) return fd.error();
    struct stat info {};
    if (::fstat(fd->get(), &info) != 0) return errno_fault("fstat " + path);
    std::vector<std::byte> data(static_cast<std::size_t>(info.st_size));
    const auto got = retried([&] { return ::read(fd->get(), data.data(), data.size()); });
    if (got < 0) return errno_fault("read " + path);
    data.resize(static_cast<std::size_t>(got));
    return data;
}

Result<void> write_all(int file, Bytes data, const std::string& path) {
    while (!data.empty()) {
        const auto put = retried([&] { return ::write(file, data.data(), data.size()); });
        if (put < 0) return errno_fault("write " + path);
        data = data.subspan(static_cast<std::size_t>(put));
    }
    return {};
}

Result<void> replace_file(const std::string& path, Bytes data) {
    const std::string other = path + ".new";
    auto fd = open_file(other, O_WRONLY | O_CREAT | O_TRUNC);
    if (!fd) return fd.error();
    auto done = write_all(fd->get(), data, other);
    if (done) done = sync_data(fd->get(), other);
    if (done) done = rename_file(other, path);
    if (done) done = sync_directory(fs::path(path).parent_path());
    return done;
}

Result<void> allocate(int file, std::size_t size, const std::string& path) {
    int error = 0;
    do error = ::posix_fallocate(file, 0, static_cast<off_t>(size));
    while (error == EINTR);
    if (error != 0) return Fault{error, "allocate " + path};
    return {};
}

void remove_tree(const std::string& path) {
    std::error_code ignored;
    fs::remove_all(path, ignored);
}

}  // namespace ipcfs::store
