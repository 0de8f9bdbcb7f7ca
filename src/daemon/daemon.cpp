// TEMPORARY BODY: builds and mounts nothing. The wiring of engine, tree and FUSE replaces this
// file.
#include <daemon/daemon.hpp>

namespace ipcfs::daemon {

struct Daemon::State {};

Daemon::Daemon() : state_(std::make_unique<State>()) {}
Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::create(const Config&, Logger&, Loop&) {
    return std::unique_ptr<Daemon>(new Daemon);
}

std::vector<std::string> Daemon::report() const {
    return {"temporary build: nothing is mounted"};
}

void Daemon::on_end(std::function<void(bool, const std::string&)>) {}

Result<void> Daemon::reload(const Config&) {
    return {};
}

void Daemon::stop() {}

std::vector<std::string> Daemon::holding() const {
    return {};
}

}  // namespace ipcfs::daemon
