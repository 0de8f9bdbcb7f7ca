// The journal's files in a real directory. Any thread.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <store/files.hpp>
#include <store/medium.hpp>

namespace ipcfs::store {

namespace {

class FileRegion final : public Region {
public:
    FileRegion(Fd file, std::byte* at, std::size_t size, std::string path)
        : file_(std::move(file)), bytes_(at, size), path_(std::move(path)) {}
    FileRegion(const FileRegion&) = delete;
    FileRegion& operator=(const FileRegion&) = delete;
    ~FileRegion() override {
        if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
    }
    std::span<std::byte> bytes() noexcept override { return bytes_; }
    Result<void> sync() override { return sync_data(file_.get(), path_); }

private:
    Fd file_;
    std::span<std::byte> bytes_;
    std::string path_;
};

Result<std::unique_ptr<Region>> map(Fd file, std::size_t size, const std::string& path) {
    if (size == 0) return std::make_unique<FileRegion>(std::move(file), nullptr, 0, path);
    void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED) return errno_fault("mmap " + path);
    auto region =
        std::make_unique<FileRegion>(std::move(file), static_cast<std::byte*>(at), size, path);
    // In single pages: one that is written dirties itself alone. In memory before it is needed,
    // so that an append never waits for the disk.
    ::madvise(at, size, MADV_RANDOM);
    if (::madvise(at, size, MADV_POPULATE_READ) != 0)
        return Fault{errno == EFAULT /* where access would be SIGBUS */ ? EIO : errno,
                     "read " + path};
    return region;
}

class FileMedium final : public Medium {
public:
    explicit FileMedium(std::string directory) : directory_(std::move(directory)) {}

    Result<std::vector<std::string>> list() override { return list_directory(directory_); }

    Result<std::unique_ptr<Region>> make(const std::string& name, std::size_t size) override {
        const std::string path = path_of(name);
        auto file = open_file(path, O_RDWR | O_CREAT | O_TRUNC);
        if (!file) return file.error();
        if (auto done = allocate(file->get(), size, path); !done) {
            (void)remove_file(path);
            return done.error();
        }
        return map(std::move(*file), size, path);
    }

    Result<std::unique_ptr<Region>> open(const std::string& name) override {
        const std::string path = path_of(name);
        auto file = open_file(path, O_RDWR);
        if (!file) return file.error();
        struct stat info {};
        if (::fstat(file->get(), &info) != 0) return errno_fault("fstat " + path);
        return map(std::move(*file), static_cast<std::size_t>(info.st_size), path);
    }

    Result<void> rename(const std::string& from, const std::string& to) override {
        return rename_file(path_of(from), path_of(to));
    }
    Result<void> remove(const std::string& name) override { return remove_file(path_of(name)); }
    Result<void> sync_names() override { return sync_directory(directory_); }

private:
    std::string path_of(const std::string& name) const { return directory_ + "/" + name; }
    std::string directory_;
};

}  // namespace

Result<std::unique_ptr<Medium>> file_medium(const std::string& directory) {
    if (auto made = make_directory(directory); !made) return made.error();
    return std::make_unique<FileMedium>(directory);
}

}  // namespace ipcfs::store
