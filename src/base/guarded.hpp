// A value that is reachable only under its lock (after kj/mutex.h). Do no callback, I/O, logging or
// large allocation inside `with`.
#pragma once

#include <mutex>
#include <utility>

namespace ipcfs {

template <class T>
class Guarded {
public:
    Guarded() = default;
    template <class... Args>
    explicit Guarded(std::in_place_t, Args&&... args) : value_(std::forward<Args>(args)...) {}

    // Calls `use` with the value under the lock and returns its result. Any thread.
    template <class F>
    decltype(auto) with(F&& use) {
        std::scoped_lock hold(mutex_);
        return std::forward<F>(use)(value_);
    }
    template <class F>
    decltype(auto) with(F&& use) const {
        std::scoped_lock hold(mutex_);
        return std::forward<F>(use)(value_);
    }

private:
    mutable std::mutex mutex_;
    T value_{};
};

}  // namespace ipcfs
