// The groups of benchmarks. A new one is a function here and a line in groups.cpp.
#pragma once

#include <functional>
#include <span>
#include <string>

#include "report.hpp"

namespace ipcfs::bench {

// One run of ipcfs-bench, as the groups see it. Main's; one thread.
class Run {
public:
    struct Options {
        unsigned rounds = 91;  // that count, of each contestant
        bool quick = false;    // shorter rounds: for a look, not for a figure to keep
        std::string daemon;    // path of ipcfsd
        std::string null_server;
        std::string directory;  // for mounts; removed at the end
    };
    Run(Options options, Report& report) : options_(std::move(options)), report_(report) {}

    const Options& options() const { return options_; }
    unsigned rounds() const { return options_.rounds; }
    // How often a round of `count` operations does its operation.
    unsigned count(unsigned count) const { return options_.quick ? (count + 3) / 4 : count; }
    void add(Row row) { report_.add(std::move(row)); }
    // To stderr, for who waits.
    void progress(const std::string& what) const;
    // Calls `measure`; what it throws is told, and the parts after it run all the same.
    void part(const std::function<void()>& measure);
    bool failed() const { return failed_; }

private:
    Options options_;
    Report& report_;
    bool failed_ = false;
};

struct Group {
    const char* name;
    const char* about;
    void (*run)(Run&);
    bool huge_pages;  // see HugePages
};
std::span<const Group> groups();

void run_engine(Run& run);
void run_fuse(Run& run);
void run_payload(Run& run);
void run_delivery(Run& run);
void run_durable(Run& run);

}  // namespace ipcfs::bench
