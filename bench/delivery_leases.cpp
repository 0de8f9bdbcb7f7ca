// Group delivery: a message taken on trial and acknowledged, beside one that is just read.
#include <array>
#include <fcntl.h>
#include <stdexcept>
#include <string>
#include <unistd.h>

#include "census.hpp"
#include "contest.hpp"
#include "delivery.hpp"
#include "links.hpp"
#include "processes.hpp"
#include "servers.hpp"

namespace ipcfs::bench {
namespace {

void send_one(const Fd& to) {
    const Numbered message;
    must(write(to.get(), message.bytes().data(), kMessageSize), "write");
}
void read_one(const Fd& from) {
    std::array<std::byte, 4 * kMessageSize> buffer;
    if (must(read(from.get(), buffer.data(), buffer.size()), "read") != kMessageSize) {
        throw std::runtime_error("a read did not bring what was written");
    }
}

}  // namespace

void measure_leases(Run& run) {
    for (const Transport transport : kTransports) {
        run.progress(std::string("delivery: leases, ") + name_of(transport));
        const Server server(run, Server::Program::kIpcfs, transport);
        for (const char* name : {"read", "leased"}) server.make_channel(name);
        run_on(Place::kOneCpu);
        server.put(Place::kOneCpu);
        const Fd read_in = open_file(server.at("read/queue"), O_WRONLY);
        const Fd read_out = open_file(server.at("read/queue"), O_RDONLY);
        const Fd lease_in = open_file(server.at("leased/queue"), O_WRONLY);
        const Fd lease = open_file(server.at("leased/lease"), O_RDWR);
        const unsigned count = run.count(transport == Transport::kUring ? 130 : 50);
        Contest contest;
        contest.add("write + read", [&] {
            return Figures{time_each(count, [&] {
                send_one(read_in);
                read_one(read_out);
            })};
        });
        contest.add("write + lease + ack", [&] {
            return Figures{time_each(count, [&] {
                send_one(lease_in);
                read_one(lease);
                must(write(lease.get(), "ack", 3), "ack");
            })};
        });
        contest.run(run.rounds());
        run.add(contest.row(std::string("write + lease + ack 64 B, ") + name_of(transport),
                            "write + lease + ack", "write + read"));
        run_on(Place::kFree);
    }
}

}  // namespace ipcfs::bench
