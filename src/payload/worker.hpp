// A thread for what takes long and no client's thread may do: copying memory, closing descriptors of
// other file systems. Jobs run in order; what is left at the end still runs. Any thread may add.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ipcfs::payload {

class Worker {
public:
    explicit Worker(const char* name);
    ~Worker();  // after the jobs that are there
    void add(std::function<void()> job);
    std::size_t waiting() const;

private:
    void run() noexcept;

    mutable std::mutex mutex_;
    std::condition_variable more_;
    std::deque<std::function<void()>> jobs_;
    bool ends_ = false;
    std::thread thread_;
};

}  // namespace ipcfs::payload
