// A thread for what takes long and no client's thread may do: moving and copying memory. Jobs run in
// order; what is left at the end still runs. Any thread may add; the thread starts with the first job.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ipcfs::payload {

class Worker {
public:
    explicit Worker(const char* name) : name_(name) {}
    ~Worker() { finish(); }
    // Waits for the jobs that are there; what is added later is never done.
    void finish() noexcept;
    void add(std::function<void()> job);
    std::size_t waiting() const;

private:
    void start();
    void run() noexcept;

    mutable std::mutex mutex_;
    std::condition_variable more_;
    std::deque<std::function<void()>> jobs_;
    bool ends_ = false;
    const char* name_;
    std::thread thread_;
};

}  // namespace ipcfs::payload
