// Group fuse: what the mounted tree costs, beside a FUSE server that does nothing (the limit) and
// beside what the kernel offers for messages between processes.
#include "fuse.hpp"

#include <array>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <unistd.h>
#include <vector>

#include "census.hpp"
#include "contest.hpp"
#include "processes.hpp"

namespace ipcfs::bench {
namespace {

constexpr unsigned kPairsUring = 130;  // a round's; about 10 us a message
constexpr unsigned kPairsClassic = 50;
constexpr unsigned kPairsKernel = 600;

unsigned pairs(Transport transport) {
    return transport == Transport::kUring ? kPairsUring : kPairsClassic;
}

const char* const kKernelLinks[] = {"pipe", "POSIX mq", "Unix seqpacket"};

std::unique_ptr<Link> open_kernel_link(const std::string& name) {
    if (name == "pipe") return open_pipe();
    if (name == "POSIX mq") return open_mq();
    return open_seqpacket();
}

// Where the kernel once put an unpinned server it stays for a while, next to its client or apart:
// so each round starts from apart.
Round placed(Place place, const Server* server, Round round) {
    return [place, server, round = std::move(round)] {
        if (server) {
            run_on(Place::kOneCpu);
            server->put(Place::kOneCpu);
            usleep(200);
            run_on(place);
            server->put(place);
        }
        return round();
    };
}

std::string of(const char* program, Transport transport) {
    return std::string(program) + ", " + name_of(transport);
}

void measure_write_and_read(Run& run, const Server (&ipcfs)[2]) {
    const Server null[] = {{run, Server::Program::kNull, Transport::kUring},
                           {run, Server::Program::kNull, Transport::kClassic}};
    const Server loop(run, Server::Program::kNullLoop, Transport::kClassic);
    for (const Place place : kPlaces) {
        const std::string where = name_of(place);
        run.progress("fuse: write + read, " + where);
        run_on(place);
        std::vector<std::unique_ptr<Link>> links;
        Contest contest;
        const auto add = [&](const std::string& name, std::unique_ptr<Link> link, unsigned count,
                             const Server* server = nullptr) {
            if (!link) return;
            contest.add(name, placed(place, server, write_and_read(*link, run.count(count))));
            links.push_back(std::move(link));
        };
        for (std::size_t i = 0; i < 2; ++i) {
            const Transport transport = kTransports[i];
            add(of("ipcfs", transport), open_channel(ipcfs[i], "jobs", "queue"), pairs(transport),
                &ipcfs[i]);
            add(of("null server", transport), open_null(null[i]), pairs(transport), &null[i]);
        }
        add("null server, libfuse's loop", open_null(loop), kPairsClassic, &loop);
        for (const char* name : kKernelLinks) add(name, open_kernel_link(name), kPairsKernel);
        contest.run(run.rounds());

        const std::string what = "write + read 64 B, ";
        for (const Transport transport : kTransports) {
            // Unpinned, the scheduler decides for each classic server by itself: no ratio to hold.
            const bool luck = place == Place::kFree && transport == Transport::kClassic;
            run.add(contest.row(what + name_of(transport) + ", " + where, of("ipcfs", transport),
                                of("null server", transport),
                                luck ? Target{} : ratio_at_most(1.15)));
        }
        run.add(contest.row(what + "classic, " + where, "ipcfs, classic",
                            "null server, libfuse's loop"));
        // A server on its client's CPU need not wake another one, which is what the ring saves;
        // unpinned on a busy machine the kernel puts it just there.
        run.add(contest.row(what + "classic, " + where, "ipcfs, classic", "ipcfs, io_uring",
                            place == Place::kOneCpu ? ratio_at_least(3) : Target{}));
        for (const char* name : kKernelLinks) {
            run.add(contest.row(what + "io_uring, " + where, "ipcfs, io_uring", name));
        }
    }
}

// Two processes; each waits for the other's message before it sends its own.
struct PingPong {
    std::unique_ptr<Link> ping, pong;

    void answer() {
        std::array<std::byte, kMessageSize> buffer;
        for (;;) {
            const std::size_t size = ping->receive(buffer);
            if (size == 0) return;
            pong->send(std::span(buffer).first(size));
        }
    }
    Round round(unsigned count) {
        return [this, count] {
            std::array<std::byte, kMessageSize> buffer{};
            return Figures{time_each(count, [&] {
                ping->send(buffer);
                if (pong->receive(buffer) != kMessageSize) throw std::runtime_error("no answer");
            })};
        };
    }
};

void measure_ping_pong(Run& run, const Server (&ipcfs)[2]) {
    for (const Place place : {Place::kSameCpu, Place::kFree}) {
        const std::string where = name_of(place);
        run.progress("fuse: ping-pong, " + where);
        run_on(place);
        for (const Server& server : ipcfs) server.put(place);
        std::deque<PingPong> pairs_of;  // outlive the children's forks
        Children children;
        Contest contest;
        const auto add = [&](const std::string& name, PingPong pair, unsigned count) {
            if (!pair.ping || !pair.pong) return;
            PingPong& kept = pairs_of.emplace_back(std::move(pair));
            children.add([&] { kept.answer(); });
            contest.add(name, kept.round(run.count(count)));
        };
        for (std::size_t i = 0; i < 2; ++i) {
            add(of("ipcfs", kTransports[i]),
                {open_channel(ipcfs[i], "ping", "stream"),
                 open_channel(ipcfs[i], "pong", "stream")},
                pairs(kTransports[i]) / 2);
        }
        for (const char* name : kKernelLinks) {
            add(name, {open_kernel_link(name), open_kernel_link(name)}, kPairsKernel / 4);
        }
        contest.run(run.rounds());
        for (const Transport transport : kTransports) {
            for (const char* name : kKernelLinks) {
                run.add(
                    contest.row(std::string("ping-pong 64 B, ") + name_of(transport) + ", " + where,
                                of("ipcfs", transport), name));
            }
        }
    }
}

}  // namespace

Round write_and_read(Link& link, unsigned count) {
    return [&link, count] {
        std::array<std::byte, kMessageSize> message{};
        std::array<std::byte, 4 * kMessageSize> buffer;
        return Figures{time_each(count, [&] {
            link.send(message);
            if (link.receive(std::span(buffer).first(kMessageSize)) != kMessageSize) {
                throw std::runtime_error("what was written did not come back");
            }
        })};
    };
}

void run_fuse(Run& run) {
    run.part([&] {
        const Server ipcfs[] = {{run, Server::Program::kIpcfs, Transport::kUring},
                                {run, Server::Program::kIpcfs, Transport::kClassic}};
        for (const Server& server : ipcfs) {
            for (const char* name : {"jobs", "ping", "pong"}) server.make_channel(name);
        }
        run.part([&] { measure_write_and_read(run, ipcfs); });
        run.part([&] { measure_ping_pong(run, ipcfs); });
    });
    for (const Transport transport : kTransports) {
        run.part([&] { measure_waiting_readers(run, transport); });
    }
    run.part([&] { measure_idle_channels(run); });
    for (const Transport transport : kTransports) {
        run.part([&] { measure_traffic_of_processes(run, transport); });
    }
}

}  // namespace ipcfs::bench
