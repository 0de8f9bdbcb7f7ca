// Group payload: what handing over memory costs, beside a small message on the same path, and
// beside other ways to carry as many bytes.
#include "payload.hpp"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sys/mman.h>

#include "huge_pages.hpp"
#include "processes.hpp"

namespace ipcfs::bench {
namespace {

// What can be had now, in bytes: of the machine, and of this control group.
std::uint64_t memory_available() {
    std::uint64_t available = std::numeric_limits<std::uint64_t>::max();
    std::ifstream info("/proc/meminfo");
    for (std::string key, unit; info >> key;) {
        std::uint64_t value = 0;
        info >> value;
        std::getline(info, unit);
        if (key == "MemAvailable:") available = value * 1024;
    }
    std::uint64_t most = 0, used = 0;
    if (std::ifstream("/sys/fs/cgroup/memory.max") >> most &&
        std::ifstream("/sys/fs/cgroup/memory.current") >> used) {
        available = std::min(available, most > used ? most - used : 0);
    }
    return available;
}

}  // namespace

std::string size_name(std::size_t bytes) {
    const char* unit = "B";
    for (const char* larger : {"KiB", "MiB", "GiB"}) {
        if (bytes < 1024 || bytes % 1024 != 0) break;
        bytes /= 1024;
        unit = larger;
    }
    return std::to_string(bytes) + " " + unit;
}

bool has_memory(Run& run, const std::string& what, std::uint64_t bytes) {
    const std::uint64_t available = memory_available();
    if (bytes <= available) return true;
    char why[96];
    std::snprintf(why, sizeof why, "not measured: needs %.1f GiB of memory, %.1f are free",
                  static_cast<double>(bytes) / kGiB, static_cast<double>(available) / kGiB);
    run.add({what, std::nullopt, "", why, std::nullopt, {}});
    return false;
}

unsigned large_rounds(const Run& run, unsigned most) {
    return std::min(run.rounds(), run.options().quick ? std::min(most, 5U) : most);
}

Round warmed(std::size_t bytes, Round round) {
    return [bytes, round = std::move(round)] {
        void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) must(-1, "mmap");
        madvise(at, bytes, MADV_HUGEPAGE);
        auto* each = static_cast<volatile char*>(at);
        for (std::size_t page = 0; page < bytes; page += 4 * kKiB) each[page] = 1;
        munmap(at, bytes);
        return round();
    };
}

void run_payload(Run& run) {
    run.progress("payload: huge pages in shared memory: " + HugePages::setting());
    measure_handover(run);
    run.part([&] { measure_bulk_traffic(run); });
    run.part([&] { measure_files(run); });
    run.part([&] { measure_lazy(run); });
}

}  // namespace ipcfs::bench
