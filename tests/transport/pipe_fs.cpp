#include "pipe_fs.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <sys/stat.h>
#include <utility>

#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr fuse_ino_t kPipe = 2;
constexpr fuse_ino_t kMemory = 3;
constexpr fuse_ino_t kDirect = 4;
constexpr off_t kShown = 1 << 24;  // bytes that stat(2) says, whatever there is

struct stat attributes(fuse_ino_t node) {
    struct stat info {};
    info.st_ino = node;
    info.st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666;
    info.st_nlink = 1;
    if (node == kMemory || node == kDirect) info.st_size = kShown;
    return info;
}

}  // namespace

class PipeFs::Read final : public Parked {
public:
    Read(PipeFs& fs, fuse_req_t req, std::size_t size) : fs_(fs), req_(req), size_(size) {}

    void interrupt(int error) noexcept override {
        {
            std::scoped_lock hold(fs_.mutex_);
            const auto self = std::find_if(fs_.waiting_.begin(), fs_.waiting_.end(),
                                           [this](const auto& read) { return read.get() == this; });
            if (self == fs_.waiting_.end()) return;
            fs_.waiting_.erase(self);
        }
        fs_.session_->unpark(ticket);
        fuse_reply_err(req_, error);
    }

    int reply(const std::string& message) {
        fs_.session_->unpark(ticket);
        return fuse_reply_buf(req_, message.data(), std::min(size_, message.size()));
    }

    ParkTicket ticket;

private:
    PipeFs& fs_;
    fuse_req_t req_;
    std::size_t size_;
};

fuse_lowlevel_ops PipeFs::operations() {
    fuse_lowlevel_ops ops{};
    ops.lookup = [](fuse_req_t req, fuse_ino_t, const char* name) {
        constexpr std::string_view kNames[] = {"pipe", "memory", "direct"};
        const auto* const found = std::find(std::begin(kNames), std::end(kNames), name);
        if (found == std::end(kNames)) {
            fuse_reply_err(req, ENOENT);
            return;
        }
        fuse_entry_param entry{};
        entry.ino = kPipe + static_cast<fuse_ino_t>(found - kNames);
        entry.attr = attributes(entry.ino);
        entry.attr_timeout = entry.entry_timeout = 3600;
        fuse_reply_entry(req, &entry);
    };
    ops.getattr = [](fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
        const auto info = attributes(node);
        fuse_reply_attr(req, &info, 3600);
    };
    ops.open = [](fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
        if (node == kDirect) return static_cast<PipeFs*>(Session::of(req).user())->open_direct(req);
        file->direct_io = 1;
        file->noflush = 1;
        fuse_reply_open(req, file);
    };
    ops.read = [](fuse_req_t req, fuse_ino_t node, std::size_t size, off_t at, fuse_file_info*) {
        auto& fs = *static_cast<PipeFs*>(Session::of(req).user());
        if (node == kPipe) return fs.read(req, size);
        Session::of(req).reply_file(req, {fs.memory_, static_cast<std::uint64_t>(at), size});
    };
    ops.release = [](fuse_req_t req, fuse_ino_t, fuse_file_info* file) {
        if (file->fh != 0) Session::of(req).close_backing(static_cast<std::int32_t>(file->fh));
        fuse_reply_err(req, 0);
    };
    ops.write = [](fuse_req_t req, fuse_ino_t, const char* data, std::size_t size, off_t,
                   fuse_file_info*) {
        static_cast<PipeFs*>(Session::of(req).user())->write(req, std::string(data, size));
    };
    return ops;
}

Result<std::unique_ptr<PipeFs>> PipeFs::serve(const std::string& path, SessionConfig config) {
    auto fs = std::make_unique<PipeFs>();
    config.mountpoint = path;
    auto session = Session::open(std::move(config), operations(), fs.get());
    if (!session) return session.error();
    fs->session_ = std::move(*session);
    if (const auto started = fs->session_->start(); !started) return started.error();
    return fs;
}

void PipeFs::open_direct(fuse_req_t req) {
    const auto backing = session_->open_backing(memory_);
    if (!backing) {
        fuse_reply_err(req, backing.error().code);
        return;
    }
    const OpenReply out{static_cast<std::uint64_t>(*backing), kOpenPassthrough, *backing};
    fuse_reply_buf(req, reinterpret_cast<const char*>(&out), sizeof out);
}

std::size_t PipeFs::queued() {
    std::scoped_lock hold(mutex_);
    return messages_.size();
}

void PipeFs::read(fuse_req_t req, std::size_t size) {
    const auto waiting = std::make_shared<Read>(*this, req, size);
    if (!session_->park(waiting, ParkRank::kRead, waiting->ticket)) {
        fuse_reply_err(req, EINTR);
        return;
    }
    std::string message;
    {
        std::scoped_lock hold(mutex_);
        if (messages_.empty()) {
            waiting_.push_back(waiting);
            return;
        }
        message = std::move(messages_.front());
        messages_.pop_front();
    }
    answer(waiting, std::move(message));
}

void PipeFs::write(fuse_req_t req, std::string message) {
    const std::size_t size = message.size();
    std::shared_ptr<Read> first;
    {
        std::scoped_lock hold(mutex_);
        if (!waiting_.empty()) {
            first = std::move(waiting_.front());
            waiting_.pop_front();
        }
        if (!first) messages_.push_back(message);
    }
    if (first) answer(first, std::move(message));
    fuse_reply_write(req, size);
}

void PipeFs::answer(const std::shared_ptr<Read>& waiting, std::string message) {
    if (waiting->reply(message) == 0) return;
    std::scoped_lock hold(mutex_);
    messages_.push_front(std::move(message));
}

}  // namespace ipcfs::fuse
