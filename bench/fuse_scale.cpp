// Group fuse: what many waiting readers and many idle channels cost those who work beside them. The
// baseline is a second daemon without them, so that both can take turns.
#include <array>
#include <fcntl.h>
#include <pthread.h>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <vector>

#include "census.hpp"
#include "fuse.hpp"
#include "processes.hpp"
#include <channel/channel.hpp>

namespace ipcfs::bench {
namespace {

constexpr unsigned kWaiting = 1'000;
constexpr unsigned kManyFiles = 10'000;
constexpr unsigned kFewFiles = 10;

// A process with a thread waiting in a read of each channel's `next`.
void read_in_threads(const Server& server) {
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 << 10);
    std::vector<int> files(kWaiting);
    for (unsigned i = 0; i < kWaiting; ++i) {
        files[i] = open_file(server.at("w" + std::to_string(i) + "/next"), O_RDONLY).release();
        pthread_t thread;
        const int failed = pthread_create(
            &thread, &small,
            [](void* file) -> void* {
                std::array<std::byte, kMessageSize> buffer;
                while (read(*static_cast<int*>(file), buffer.data(), buffer.size()) < 0) {
                }
                return nullptr;
            },
            &files[i]);
        if (failed != 0) throw std::runtime_error("no thread for another reader");
    }
    for (;;) pause();
}

// The writes alone are timed; the message is read back between them.
Round writes(Link& link, unsigned count) {
    return [&link, count] {
        std::array<std::byte, kMessageSize> message{};
        std::vector<double> took;
        for (unsigned i = 0; i < count; ++i) {
            const auto from = now_ns();
            link.send(message);
            took.push_back(static_cast<double>(now_ns() - from));
            link.receive(message);
        }
        return Figures{median(std::move(took))};
    };
}

// What a shell does: echo > queue, cat queue, on ten channels in turn.
Round echo_and_cat(const Server& server, unsigned count) {
    return [&server, count, at = 0U]() mutable {
        std::array<std::byte, kMessageSize> message{};
        return Figures{time_each(count, [&] {
            const std::string path = server.at("c" + std::to_string(at++ % kFewFiles) + "/queue");
            {
                const Fd out = open_file(path, O_WRONLY);
                must(write(out.get(), message.data(), message.size()), "write");
            }
            const Fd in = open_file(path, O_RDONLY);
            must(read(in.get(), message.data(), message.size()), "read");
        })};
    };
}

Round make_and_remove(const Server& server, unsigned count) {
    return [&server, count] {
        const std::string path = server.at("new");
        return Figures{time_each(count, [&] {
            must(mkdir(path.c_str(), 0777), "mkdir");
            must(rmdir(path.c_str()), "rmdir");
        })};
    };
}

}  // namespace

void measure_waiting_readers(Run& run, Transport transport) {
    run.progress(std::string("fuse: 1,000 waiting readers, ") + name_of(transport));
    const Server calm(run, Server::Program::kIpcfs, transport);
    const Server busy(run, Server::Program::kIpcfs, transport);
    for (const Server* server : {&calm, &busy}) {
        server->make_channel("jobs");
        for (unsigned i = 0; i < kWaiting; ++i) server->make_channel("w" + std::to_string(i));
    }
    run_on(Place::kOneCpu);  // all of them on the writer's CPU: the worst case
    calm.put(Place::kOneCpu);
    busy.put(Place::kOneCpu);
    Children readers;
    readers.add([&] { read_in_threads(busy); });
    const auto until = now_ns() + 20'000'000'000;
    for (unsigned i = 0; i < kWaiting; ++i) {
        const std::string status = "w" + std::to_string(i) + "/status";
        while (busy.value(status, "waiting-readers") != "1") {
            if (now_ns() > until) throw std::runtime_error("the readers do not come to wait");
            usleep(2000);
        }
    }
    auto beside_none = open_channel(calm, "jobs", "queue");
    auto beside_many = open_channel(busy, "jobs", "queue");
    const unsigned count = run.count(transport == Transport::kUring ? 130 : 50);
    const auto figures =
        interleave(run.rounds(), {writes(*beside_many, count), writes(*beside_none, count)});
    run.add({std::string("write 64 B, 1,000 readers wait elsewhere, ") + name_of(transport),
             figures[0][0], "ns", "none waits", figures[1][0], ratio_at_most(1.2)});
}

void measure_idle_channels(Run& run) {
    run.progress("fuse: 10,000 channels");
    const Server few(run, Server::Program::kIpcfs, Transport::kUring);
    const Server many(run, Server::Program::kIpcfs, Transport::kUring);
    for (const Server* server : {&few, &many}) {
        for (unsigned i = 0; i < kFewFiles; ++i) server->make_channel("c" + std::to_string(i));
    }
    run_on(Place::kOneCpu);
    auto few_link = open_channel(few, "c0", "queue"), many_link = open_channel(many, "c0", "queue");
    // The kernel goes through all entries of the ring; each touches memory once.
    write_and_read(*many_link, 10'000)();
    const auto before = many.resident();
    for (unsigned i = kFewFiles; i < kManyFiles; ++i) many.make_channel("c" + std::to_string(i));
    const double each = static_cast<double>(many.resident() - before) / (kManyFiles - kFewFiles);
    run.add({"memory of an idle channel, of 10,000 (resident)", each, "B", "sizeof(Channel)",
             static_cast<double>(sizeof(channel::Channel)), value_at_most(4096)});

    struct {
        const char* name;
        Round with_many, with_few;
    } const operations[] = {
        {"write + read 64 B on open files, 10,000 channels",
         write_and_read(*many_link, run.count(130)), write_and_read(*few_link, run.count(130))},
        {"open write close, open read close, 10,000 channels", echo_and_cat(many, run.count(50)),
         echo_and_cat(few, run.count(50))},
        {"mkdir + rmdir, 10,000 channels", make_and_remove(many, run.count(50)),
         make_and_remove(few, run.count(50))},
    };
    for (const auto& operation : operations) {
        const auto figures = interleave(run.rounds(), {operation.with_many, operation.with_few});
        run.add({operation.name, figures[0][0], "ns", "10 channels", figures[1][0],
                 ratio_at_most(1.2)});
    }
}

}  // namespace ipcfs::bench
