// The smallest file system that makes requests wait: in `pipe` a write queues a message or hands it to
// the reader that waits longest; a read takes one or waits. `memory` shows a memory file of the test's,
// `direct` lets clients use it themselves. Serves the transport's tests; its session runs the handlers,
// the test's threads are the clients.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include <base/fd.hpp>
#include <fuse/session.hpp>

namespace ipcfs::fuse {

class PipeFs {
public:
    // Mounts on `path`. `config.mountpoint` is overwritten.
    static Result<std::unique_ptr<PipeFs>> serve(const std::string& path, SessionConfig config);

    Session& session() { return *session_; }
    std::size_t queued();
    // What `memory` and `direct` show, kept until the session has ended. Once, before they are opened.
    void show(Fd file) {
        shown_ = std::move(file);
        memory_ = shown_.get();
    }

private:
    class Read;
    static FileSystem operations();
    void read(Request& request, std::size_t size);
    void write(Request& request, std::string message);
    void open_direct(Request& request);
    void answer(const std::shared_ptr<Read>& waiting, std::string message);

    std::mutex mutex_;
    Fd shown_;
    std::atomic<int> memory_ = -1;  // of shown_, for the session's threads
    std::deque<std::string> messages_;
    std::deque<std::shared_ptr<Read>> waiting_;
    std::unique_ptr<Session> session_;  // last: ends before the queues do
};

}  // namespace ipcfs::fuse
