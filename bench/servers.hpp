// FUSE servers under measurement: the real ipcfsd and null_fuse, each on a temporary mount of its
// own, with everything else at its defaults. One thread.
#pragma once

#include <cstdint>
#include <string>
#include <sys/types.h>
#include <vector>

#include "groups.hpp"
#include "measure.hpp"

namespace ipcfs::bench {

enum class Transport { kUring, kClassic };
constexpr Transport kTransports[] = {Transport::kUring, Transport::kClassic};
const char* name_of(Transport transport);

class Server {
public:
    // kNullLoop: null_fuse on libfuse's own loop instead of our transport; classic.
    enum class Program { kIpcfs, kNull, kNullLoop };

    // Starts it and waits until it serves. Throws, with the end of its output, when it does not.
    // The null servers stream the file `stream`, where there is one; else it is -1.
    Server(const Run& run, Program program, Transport transport, int stream = -1);
    // ipcfsd with settings of its configuration, `key=value` each. `directory`, where it is given, has its
    // mount point and its state, and outlasts it.
    struct Start {
        Transport transport = Transport::kUring;
        std::string directory;
        std::vector<std::string> settings;
    };
    Server(const Run& run, const Start& start);
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;
    ~Server();

    // Below the mount.
    std::string at(const std::string& path) const { return mount_ + "/" + path; }
    // A channel; `settings` are lines for its ctl.
    void make_channel(const std::string& name, const std::string& settings = "") const;
    // The value of `key` in a file of `key value` lines.
    std::string value(const std::string& file, const std::string& key) const;
    // See put_server(): for classic servers; nothing happens to others.
    void put(Place place) const;
    // Resident memory, bytes.
    std::uint64_t resident() const;
    // Of the process that serves, which is another than the one that was started where the mount
    // outlives a killed daemon.
    pid_t pid() const;
    // Ends it, and whoever would start it again, with that signal; returns when all have ended.
    void end(int signal);

private:
    void start(const Run& run, Program program, int stream, const Start* how);
    bool serves() const;

    std::string directory_, mount_;
    const Transport transport_;
    pid_t pid_ = -1;
    bool is_ipcfs_ = false;
};

}  // namespace ipcfs::bench
