// Group fuse: eight writing and eight reading processes on one channel, and on eight: messages a
// second through the mount, and whether all came, once and in each writer's order.
#include <algorithm>
#include <array>
#include <fcntl.h>
#include <functional>
#include <memory>
#include <string>
#include <unistd.h>
#include <vector>

#include "census.hpp"
#include "fuse.hpp"
#include "processes.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::int64_t kTrafficPatience = 30'000'000'000;

// Opens both ends of the link that process number `who` of its kind uses, in that process.
using Open = std::function<std::unique_ptr<Link>(std::uint32_t who)>;

// Holds children back until it is opened.
class Gate {
public:
    Gate() {
        int ends[2];
        must(pipe2(ends, O_CLOEXEC), "pipe");
        waiting_.reset(ends[0]);
        holding_.reset(ends[1]);
    }
    void pass() {  // in a child
        holding_.reset();
        char none = 0;
        must(read(waiting_.get(), &none, 1), "read");
    }
    void open() { holding_.reset(); }

private:
    Fd waiting_, holding_;
};

// Messages a second, and how many went wrong.
Figures run_processes(const Open& writing, const Open& reading, std::uint32_t each) {
    Census census(each);
    Gate gate;
    Children readers, writers;
    for (std::uint32_t i = 0; i < kReaders; ++i) {
        readers.add([&, i] {
            auto link = reading(i);
            gate.pass();
            Census::Reader reader(census);
            std::array<std::byte, kMessageSize> buffer;
            while (reader.take(std::span(buffer).first(link->receive(buffer)))) {
            }
        });
    }
    for (std::uint32_t i = 0; i < kWriters; ++i) {
        writers.add([&, i] {
            auto link = writing(i);
            gate.pass();
            Numbered message;
            message.writer = i;
            for (message.number = 0; message.number < each; ++message.number) {
                link->send(message.bytes());
            }
        });
    }
    const auto from = now_ns();
    gate.open();
    bool good = writers.join(kTrafficPatience);
    Numbered end;
    end.writer = kEnd;
    for (std::uint32_t i = 0; i < kReaders; ++i) writing(i)->send(end.bytes());
    good = readers.join(kTrafficPatience) && good;
    const double seconds = static_cast<double>(now_ns() - from) / 1e9;
    return {kWriters * static_cast<double>(each) / seconds,
            static_cast<double>(census.wrong() + (good ? 0 : 1))};
}

// Neither end of the file link that is not used is opened.
Open channel_end(const Server& server, std::uint32_t channels, const std::string& file, int flags) {
    return [&server, channels, file, flags](std::uint32_t who) -> std::unique_ptr<Link> {
        Fd opened = open_file(server.at("t" + std::to_string(who % channels) + "/" + file), flags);
        if (flags == O_WRONLY) return std::make_unique<FileLink>(std::move(opened), Fd());
        return std::make_unique<FileLink>(Fd(), std::move(opened));
    };
}

// A link that stays open in the parent; its children use it as it is.
class Borrowed final : public Link {
public:
    explicit Borrowed(Link& link) : link_(link) {}
    void send(std::span<const std::byte> message) override { link_.send(message); }
    std::size_t receive(std::span<std::byte> buffer) override { return link_.receive(buffer); }

private:
    Link& link_;
};

}  // namespace

void measure_traffic_of_processes(Run& run, Transport transport) {
    const Server server(run, Server::Program::kIpcfs, transport);
    for (std::uint32_t i = 0; i < 8; ++i) server.make_channel("t" + std::to_string(i));
    for (const std::uint32_t channels : {1U, 8U}) {
        const std::string on =
            std::string(channels == 1 ? "one channel, " : "eight channels, ") + name_of(transport);
        run.progress("fuse: 8 writers and 8 readers, " + on);
        std::vector<std::unique_ptr<Link>> sockets;
        for (std::uint32_t i = 0; i < channels; ++i) sockets.push_back(open_seqpacket());
        const Open socket = [&](std::uint32_t who) {
            return std::make_unique<Borrowed>(*sockets[who % channels]);
        };
        double wrong[2] = {0, 0};
        const std::uint32_t each = run.count(transport == Transport::kUring ? 800 : 400);
        const auto round = [each](const Open& writing, const Open& reading, double& sum) -> Round {
            return [&sum, writing, reading, each] {
                Figures figures = run_processes(writing, reading, each);
                sum += figures[1];
                return figures;
            };
        };
        const auto figures =
            interleave(std::min(run.rounds(), 5U),
                       {round(channel_end(server, channels, "queue", O_WRONLY),
                              channel_end(server, channels, "stream", O_RDONLY), wrong[0]),
                        round(socket, socket, wrong[1])});
        const std::string baseline = "Unix seqpacket";
        run.add(
            {"8 writers, 8 readers, " + on, figures[0][0], "msg/s", baseline, figures[1][0], {}});
        run.add({"lost, doubled or out of order, " + on, wrong[0], "messages", baseline, wrong[1],
                 value_at_most(0)});
    }
}

}  // namespace ipcfs::bench
