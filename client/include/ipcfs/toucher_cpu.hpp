// Chooses the CPU that serves page faults. While each fault waits for us, that is the CPU of the
// faulting thread: waking an idle CPU costs several times what serving the fault does (ten times on
// a virtual machine). While the receiver reads on and we fill ahead, it is any other CPU. Only a
// hint: a wrong choice costs only time. Internal to the client header. Changes the calling thread's
// affinity; one object a thread.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sched.h>
#include <string>

#include <ipcfs/wait.hpp>

namespace ipcfs::detail {

// The CPU that a thread runs or last ran on; -1 if unknown (another pid namespace, hidepid).
inline int cpu_of_thread(std::uint32_t tid) {
    std::array<char, 32> path;
    std::snprintf(path.data(), path.size(), "/proc/%u/stat", tid);
    const std::string text = read_start(AT_FDCWD, path.data());
    // Field 39 of proc(5) stat. Field 2 is a name in parentheses that may contain anything.
    const char* at = std::strrchr(text.c_str(), ')');
    for (int field = 2; at != nullptr && field < 39; ++field) {
        at = std::strchr(at, ' ');
        if (at != nullptr) ++at;
    }
    return at == nullptr ? -1 : std::atoi(at);
}

class ToucherCpu {
public:
    // Thread `tid` had a page fault that read-ahead did not predict.
    void follow(std::uint32_t tid) {
        if (tid == 0 || count_++ % kSampleInterval != 0) return;
        const int cpu = cpu_of_thread(tid);
        if (cpu < 0 || cpu >= CPU_SETSIZE || cpu == at_) return;
        if (at_ < 0 && ::sched_getaffinity(0, sizeof own_, &own_) != 0) return;
        if (!CPU_ISSET(cpu, &own_)) return;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        if (::sched_setaffinity(0, sizeof one, &one) == 0) at_ = cpu;
    }
    void leave() noexcept {
        count_ = 0;
        if (at_ < 0) return;
        ::sched_setaffinity(0, sizeof own_, &own_);
        at_ = -1;
    }
    bool following() const noexcept { return at_ >= 0; }

private:
    static constexpr unsigned kSampleInterval = 16;

    cpu_set_t own_{};  // the thread's original affinity
    int at_ = -1;
    unsigned count_ = 0;
};

}  // namespace ipcfs::detail
