// A disk whose power goes off: a medium for the journal that keeps what was written apart from what
// was synced, in sectors, and names likewise. At a chosen operation it ends; what is then there is what
// was synced and any subset of the rest, with names as after any prefix of what was done to them.
// A sync can be made to fail, after which, as with Linux, its pages count as written and are not.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#include <store/medium.hpp>

namespace ipcfs::store {

class Disk {
    template <class F>
    auto locked(F&& use) const {
        const std::scoped_lock hold(mutex_);
        return use();
    }

public:
    enum class Rest { kNothing, kAll, kSome };  // of what was not synced

    // The power goes off at the operation of that index (from 0).
    void end_at(std::uint64_t operation) {
        const std::scoped_lock hold(mutex_);
        end_at_ = operation;
    }
    // The sync of that number (from 0) fails; and so do those after it, if `for_good`.
    void fail_sync(std::uint64_t number, bool for_good = false) {
        const std::scoped_lock hold(mutex_);
        fail_sync_ = number;
        fail_for_good_ = for_good;
    }
    std::uint64_t operations() const {
        return locked([this] { return operations_; });
    }
    std::uint64_t syncs() const {
        return locked([this] { return syncs_; });
    }
    bool off() const {
        return locked([this] { return off_; });
    }

    // The power comes back.
    void restart(Rest rest, std::mt19937_64& random) {
        const std::scoped_lock hold(mutex_);
        std::size_t kept = 0;
        if (rest == Rest::kAll) kept = undone_.size();
        if (rest == Rest::kSome) kept = random() % (undone_.size() + 1);
        names_ = durable_names_;
        for (std::size_t i = 0; i < kept; ++i) undone_[i](names_);
        undone_.clear();
        durable_names_ = names_;
        for (auto& [name, file] : names_) {
            auto next = std::make_shared<File>(file->size);
            next->durable = off_ ? file->at_end_durable : file->durable;
            const auto& written = off_ ? file->at_end : file->cache;
            const auto& clean = off_ ? file->at_end_clean : file->clean;
            for (std::size_t at = 0; at < file->size; at += kSector) {
                const bool keep = rest == Rest::kAll || (rest == Rest::kSome && random() % 2 == 0);
                if (keep && differ(written, clean, at)) copy(written, next->durable, at);
            }
            next->clean = next->durable;
            next->cache = next->durable;
            file = next;
        }
        for (auto& [name, file] : durable_names_) file = names_[name];
        end_at_ = fail_sync_ = ~std::uint64_t{0};
        fail_for_good_ = off_ = false;
        operations_ = syncs_ = 0;
    }

    void clear() {
        const std::scoped_lock hold(mutex_);
        names_.clear();
        durable_names_.clear();
        undone_.clear();
    }

    Result<std::unique_ptr<Medium>> medium() { return std::make_unique<OfDisk>(*this); }

private:
    static constexpr std::size_t kSector = 512;
    using Content = std::vector<std::byte>;

    struct File {
        explicit File(std::size_t of) : size(of), cache(of), clean(of), durable(of) {}
        std::size_t size;
        Content cache;                                 // what programs see
        Content clean;                                 // what the kernel believes to be on disk
        Content durable;                               // what is
        Content at_end, at_end_clean, at_end_durable;  // when the power went off
    };
    using Names = std::map<std::string, std::shared_ptr<File>>;

    static bool differ(const Content& a, const Content& b, std::size_t at) {
        const auto size = std::min(kSector, a.size() - at);
        return std::memcmp(a.data() + at, b.data() + at, size) != 0;
    }
    static void copy(const Content& from, Content& to, std::size_t at) {
        const auto size = std::min(kSector, from.size() - at);
        std::memcpy(to.data() + at, from.data() + at, size);
    }
    // As the kernel reads pages that somebody is writing to.
#if defined(__SANITIZE_THREAD__)
    __attribute__((no_sanitize("thread")))
#endif
    static Content
    picture(const Content& of) {
        Content taken(of.size());
        const volatile std::byte* const from = of.data();
        std::byte* const to = taken.data();
        for (std::size_t i = 0; i < of.size(); ++i) to[i] = from[i];
        return taken;
    }

    // Counts an operation; false: the power is off. Under the lock.
    bool goes_on() {
        if (off_) return false;
        if (operations_++ != end_at_) return true;
        off_ = true;
        for (auto* const names : {&names_, &durable_names_}) {
            for (auto& [name, file] : *names) {
                file->at_end = picture(file->cache);
                file->at_end_clean = file->clean;
                file->at_end_durable = file->durable;
            }
        }
        return false;
    }
    static Fault gone() {
        return Fault{EIO, "the power is off"};
    }

    void on_names(std::function<void(Names&)> change) {
        change(names_);
        undone_.push_back(std::move(change));
    }

    Result<void> sync(File& file) {
        const std::scoped_lock hold(mutex_);
        const std::uint64_t number = syncs_++;
        if (!goes_on()) return gone();
        const Content now = picture(file.cache);
        const bool fails = number == fail_sync_ || (fail_for_good_ && number > fail_sync_);
        if (!fails)
            for (std::size_t at = 0; at < file.size; at += kSector)
                if (differ(now, file.clean, at)) copy(now, file.durable, at);
        file.clean = now;
        if (fails) return Fault{EIO, "fdatasync"};
        return {};
    }

    class OfFile final : public Region {
    public:
        OfFile(Disk& disk, std::shared_ptr<File> file) : disk_(disk), file_(std::move(file)) {}
        std::span<std::byte> bytes() noexcept override { return file_->cache; }
        Result<void> sync() override { return disk_.sync(*file_); }

    private:
        Disk& disk_;
        std::shared_ptr<File> file_;
    };

    class OfDisk final : public Medium {
    public:
        explicit OfDisk(Disk& disk) : disk_(disk) {}
        Result<std::vector<std::string>> list() override {
            return disk_.locked([&] {
                std::vector<std::string> names;
                for (const auto& [name, file] : disk_.names_) names.push_back(name);
                return names;
            });
        }
        Result<std::unique_ptr<Region>> make(const std::string& name, std::size_t size) override {
            const std::scoped_lock hold(disk_.mutex_);
            if (!disk_.goes_on()) return gone();
            auto file = std::make_shared<File>(size);
            disk_.on_names([name, file](Names& names) { names[name] = file; });
            return std::make_unique<OfFile>(disk_, file);
        }
        Result<std::unique_ptr<Region>> open(const std::string& name) override {
            const std::scoped_lock hold(disk_.mutex_);
            if (disk_.off_) return gone();
            return std::make_unique<OfFile>(disk_, disk_.names_.at(name));
        }
        Result<void> rename(const std::string& from, const std::string& to) override {
            const std::scoped_lock hold(disk_.mutex_);
            if (!disk_.goes_on()) return gone();
            disk_.on_names([from, to](Names& names) {
                names[to] = names.at(from);
                names.erase(from);
            });
            return {};
        }
        Result<void> remove(const std::string& name) override {
            const std::scoped_lock hold(disk_.mutex_);
            if (!disk_.goes_on()) return gone();
            disk_.on_names([name](Names& names) { names.erase(name); });
            return {};
        }
        Result<void> sync_names() override {
            const std::scoped_lock hold(disk_.mutex_);
            if (!disk_.goes_on()) return gone();
            disk_.durable_names_ = disk_.names_;
            disk_.undone_.clear();
            return {};
        }

    private:
        Disk& disk_;
    };

    mutable std::mutex mutex_;
    Names names_, durable_names_;
    std::vector<std::function<void(Names&)>> undone_;  // since the last sync of names
    std::uint64_t operations_ = 0, syncs_ = 0;
    std::uint64_t end_at_ = ~std::uint64_t{0}, fail_sync_ = ~std::uint64_t{0};
    bool fail_for_good_ = false, off_ = false;
};

}  // namespace ipcfs::store
