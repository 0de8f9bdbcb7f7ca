// All groups there are.
#include "groups.hpp"

#include <cstdio>
#include <exception>

#include "measure.hpp"

namespace ipcfs::bench {
namespace {

constexpr Group kGroups[] = {
    {"fuse", "through the mounted tree", run_fuse, false},
    {"engine", "channels and the registry, without a door", run_engine, false},
    {"delivery", "one message to many subscribers, and leases", run_delivery, false},
    {"durable", "messages on disk, and their recovery", run_durable, false},
    {"payload", "large messages, and memory that changes hands", run_payload, true},
};

}  // namespace

std::span<const Group> groups() {
    return kGroups;
}

void Run::progress(const std::string& what) const {
    std::fprintf(stderr, "ipcfs-bench: %s\n", what.c_str());
}

void Run::part(const std::function<void()>& measure) {
    try {
        measure();
    } catch (const std::exception& failed) {
        failed_ = true;
        std::fprintf(stderr, "ipcfs-bench: FAILED: %s\n", failed.what());
    }
    run_on(Place::kFree);
}

}  // namespace ipcfs::bench
