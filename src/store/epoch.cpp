// The epoch file. One thread.
#include <fcntl.h>
#include <fstream>
#include <unistd.h>

#include <store/epoch.hpp>
#include <store/files.hpp>

namespace ipcfs::store {

namespace {

constexpr std::size_t kSlotDistance = 4096;

EpochSlot with_crc(EpochSlot slot) {
    slot.crc = 0;
    slot.crc = crc32c(bytes_of(slot));
    return slot;
}

}  // namespace

Result<void> Epoch::make(const std::string& path) {
    std::vector<std::byte> data(2 * kSlotDistance);
    const EpochSlot first = with_crc({});
    EpochSlot second;
    second.counter = 1;
    second = with_crc(second);
    std::memcpy(data.data(), &first, sizeof first);
    std::memcpy(data.data() + kSlotDistance, &second, sizeof second);
    return replace_file(path, data);
}

Result<Epoch> Epoch::open(const std::string& path) {
    Epoch epoch;
    epoch.path_ = path;
    auto data = read_file(path);
    if (!data) return data.error();
    int readable = 0;
    for (std::size_t i = 0; i < 2; ++i) {
        if (data->size() < i * kSlotDistance + sizeof(EpochSlot)) continue;
        const auto slot = load<EpochSlot>(Bytes(*data).subspan(i * kSlotDistance));
        if (slot.magic != EpochSlot{}.magic || with_crc(slot).crc != slot.crc) continue;
        if (slot.version != kFormatVersion) return other_version(path, slot.version);
        if (slot.counter % 2 != i) continue;
        if (readable++ == 0 || slot.counter > epoch.slot_.counter) epoch.slot_ = slot;
    }
    epoch.intact_ = readable == 2;
    epoch.readable_ = readable != 0;
    auto file = open_file(path, O_RDWR);
    if (!file) return file.error();
    epoch.file_ = std::move(*file);
    return epoch;
}

Result<void> Epoch::write(EpochSlot next) {
    next.version = kFormatVersion;
    next.counter = slot_.counter + 1;
    next = with_crc(next);
    const auto at = static_cast<off_t>(next.counter % 2 * kSlotDistance);
    const auto put = ::pwrite(file_.get(), &next, sizeof next, at);
    if (put < 0) return errno_fault("write " + path_);
    if (put != sizeof next) return Fault{EIO, "write " + path_};
    if (auto done = sync_data(file_.get(), path_); !done) return done;
    slot_ = next;
    return {};
}

Fault other_version(const std::string& path, std::uint32_t version) {
    const std::string formats = "(format " + std::to_string(version) + ", this one knows " +
                                std::to_string(kFormatVersion) + ")";
    if (version > kFormatVersion)
        return {EPROTO, path + " was written by a newer version of ipcfs " + formats};
    return {EPROTO, path + " was written by an older version of ipcfs " + formats +
                        ": let that version deliver what is left in it, or move the directory "
                        "away to begin with an empty store"};
}

std::string boot_id() {
    std::string id;
    std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
    return id;
}

}  // namespace ipcfs::store
