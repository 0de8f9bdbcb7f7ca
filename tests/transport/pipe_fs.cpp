#include "pipe_fs.hpp"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <sys/stat.h>
#include <utility>

#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::uint64_t kPipe = 2;
constexpr std::uint64_t kMemory = 3;
constexpr std::uint64_t kDirect = 4;
constexpr std::uint64_t kShown = 1 << 24;  // bytes that stat(2) says, whatever there is
constexpr std::uint64_t kForAnHour = 3600;

fuse_attr attributes(std::uint64_t node) {
    fuse_attr info{};
    info.ino = node;
    info.mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666;
    info.nlink = 1;
    if (node == kMemory || node == kDirect) info.size = kShown;
    return info;
}

void lookup(Request& request) noexcept {
    constexpr std::string_view kNames[] = {"pipe", "memory", "direct"};
    const auto* const found = std::find(std::begin(kNames), std::end(kNames), request.name());
    if (found == std::end(kNames)) {
        request.fail(ENOENT);
        return;
    }
    fuse_entry_out entry{};
    entry.nodeid = kPipe + static_cast<std::uint64_t>(found - kNames);
    entry.attr = attributes(entry.nodeid);
    entry.attr_valid = entry.entry_valid = kForAnHour;
    request.reply(entry);
}

void getattr(Request& request) noexcept {
    fuse_attr_out out{};
    out.attr_valid = kForAnHour;
    out.attr = attributes(request.header().nodeid);
    request.reply(out);
}

void release(Request& request) noexcept {
    const std::uint64_t handle = request.in<fuse_release_in>().fh;
    if (handle != 0) request.session().close_backing(static_cast<std::int32_t>(handle));
    request.fail(0);
}

PipeFs& fs_of(const Request& request) {
    return *static_cast<PipeFs*>(request.session().user());
}

}  // namespace

class PipeFs::Read final : public Parked {
public:
    Read(PipeFs& fs, Request&& request, std::size_t size)
        : fs_(fs), request_(std::move(request)), size_(size) {}

    void interrupt(int error) noexcept override {
        {
            std::scoped_lock hold(fs_.mutex_);
            const auto self = std::find_if(fs_.waiting_.begin(), fs_.waiting_.end(),
                                           [this](const auto& read) { return read.get() == this; });
            if (self == fs_.waiting_.end()) return;
            fs_.waiting_.erase(self);
        }
        request_.fail(error);
    }

    bool reply(std::string_view message) { return request_.reply_text(message.substr(0, size_)); }
    Request& request() { return request_; }

private:
    PipeFs& fs_;
    Request request_;
    std::size_t size_;
};

FileSystem PipeFs::operations() {
    FileSystem system;
    auto& at = system.handlers;
    at[FUSE_LOOKUP] = lookup;
    at[FUSE_GETATTR] = getattr;
    at[FUSE_RELEASE] = release;
    at[FUSE_OPEN] = [](Request& request) noexcept {
        if (request.header().nodeid == kDirect) return fs_of(request).open_direct(request);
        request.reply(fuse_open_out{0, FOPEN_DIRECT_IO | FOPEN_NOFLUSH, 0});
    };
    at[FUSE_OPENDIR] = [](Request& request) noexcept { request.reply(fuse_open_out{}); };
    at[FUSE_READ] = [](Request& request) noexcept {
        const auto in = request.in<fuse_read_in>();
        if (request.header().nodeid == kPipe) return fs_of(request).read(request, in.size);
        request.reply_file({fs_of(request).memory_, in.offset, in.size});
    };
    at[FUSE_WRITE] = [](Request& request) noexcept {
        const auto in = request.in<fuse_write_in>();
        fs_of(request).write(request, std::string(request.name(sizeof in), in.size));
    };
    return system;
}

Result<std::unique_ptr<PipeFs>> PipeFs::serve(const std::string& path, SessionConfig config) {
    auto fs = std::make_unique<PipeFs>();
    config.mountpoint = path;
    static const FileSystem system = operations();
    auto session = Session::open(std::move(config), system, fs.get());
    if (!session) return session.error();
    fs->session_ = std::move(*session);
    if (const auto started = fs->session_->start(); !started) return started.error();
    return fs;
}

void PipeFs::open_direct(Request& request) {
    const auto backing = session_->open_backing(memory_);
    if (backing) {
        request.reply(OpenReply{static_cast<std::uint64_t>(*backing), kOpenPassthrough, *backing});
    } else {
        request.fail(backing.error().code);
    }
}

std::size_t PipeFs::queued() {
    std::scoped_lock hold(mutex_);
    return messages_.size();
}

void PipeFs::read(Request& request, std::size_t size) {
    const auto waiting = std::make_shared<Read>(*this, std::move(request), size);
    if (!session_->park(waiting, ParkRank::kRead, waiting->request())) {
        waiting->request().fail(EINTR);
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

void PipeFs::write(Request& request, std::string message) {
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
    request.reply(fuse_write_out{static_cast<std::uint32_t>(size), 0});
}

void PipeFs::answer(const std::shared_ptr<Read>& waiting, std::string message) {
    if (waiting->reply(message)) return;
    std::scoped_lock hold(mutex_);
    messages_.push_front(std::move(message));
}

}  // namespace ipcfs::fuse
