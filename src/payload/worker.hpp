// A background thread for long jobs that must not run in a client's request, such as copying
// memory. Jobs run in order, and all queued jobs run before finish() returns. Any thread may add;
// the thread starts with the first job.
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
    // Runs the queued jobs and joins the thread. Jobs added later never run.
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
