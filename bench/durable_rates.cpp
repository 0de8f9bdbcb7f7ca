// Group durable: 1 KiB messages that are on disk when the sender goes on, from one sender and from
// 64, beside Redis Streams, NATS JetStream and the disk itself, all in directories of one file system.
#include <array>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <stdexcept>
#include <string>
#include <sys/statfs.h>
#include <unistd.h>
#include <vector>

#include "contest.hpp"
#include "durable.hpp"
#include "durable_store.hpp"
#include "links.hpp"
#include "payload_client.hpp"
#include "processes.hpp"
#include "senders.hpp"
#include "servers.hpp"
namespace ipcfs::bench {
namespace {

constexpr unsigned kManySenders = 64;
constexpr std::int64_t kLasting = 150'000'000;  // a round's
constexpr long kTmpfs = 0x01021994;
const std::array<std::byte, 1024> kBody{};

// The client header. Each sender has opened the channel for itself.
class HeaderSender final : public Sender {
public:
    explicit HeaderSender(const std::string& channel) : channel_(need(Channel::open(channel))) {}
    void send(std::span<const std::byte> body) override { need(channel_.send(body)); }

private:
    Channel channel_;
};

// write(2); and, where it is a plain file, fdatasync(2).
class FileSender final : public Sender {
public:
    FileSender(Fd fd, bool syncs) : fd_(std::move(fd)), syncs_(syncs) {}
    void send(std::span<const std::byte> body) override {
        if (must(write(fd_.get(), body.data(), body.size()), "write") !=
            static_cast<long>(body.size())) {
            throw std::runtime_error("a short write");
        }
        if (syncs_) must(fdatasync(fd_.get()), "fdatasync");
    }

private:
    Fd fd_;
    const bool syncs_;
};

// A file with its blocks there already, so that a sync is the data's alone: what the disk can do.
Fd allocated_file(const std::string& path) {
    constexpr std::size_t kSize = 64 << 20;
    Fd fd = open_file(path, O_RDWR | O_CREAT);
    const std::vector<std::byte> zeros(1 << 20);
    for (std::size_t at = 0; at < kSize; at += zeros.size()) {
        must(write(fd.get(), zeros.data(), zeros.size()), "write " + path);
    }
    must(fsync(fd.get()), "fsync");
    must(lseek(fd.get(), 0, SEEK_SET), "lseek");
    return fd;
}

// A server's channels and who sends to them.
class Ipcfs {
public:
    Ipcfs(const Run& run, Transport transport) : server_(run, {transport, "", {}}) {
        for (const std::string durable : {"sync", "async", "off"}) make(durable, durable);
        for (unsigned i = 0; i < kManySenders; ++i) make("own" + std::to_string(i), "sync");
    }
    Senders by_header(const std::string& channel, unsigned count) const {
        Senders to;
        for (unsigned i = 0; i < count; ++i) {
            to.push_back(std::make_unique<HeaderSender>(server_.at(channel)));
        }
        return to;
    }
    // All on one channel, or each on its own.
    Senders by_file(const std::string& channel, unsigned count, bool own) const {
        Senders to;
        for (unsigned i = 0; i < count; ++i) {
            const std::string name = own ? "own" + std::to_string(i) : channel;
            to.push_back(std::make_unique<FileSender>(
                open_file(server_.at(name + "/queue"), O_WRONLY), false));
        }
        return to;
    }
    void empty() const {
        for (const auto& name : channels_) {
            const Fd ctl = open_file(server_.at(name + "/ctl"), O_WRONLY);
            must(write(ctl.get(), "purge", 5), "purge");
        }
        // What nobody waited for is not left to the next one's first sync.
        const Fd queue = open_file(server_.at("own0/queue"), O_WRONLY);
        must(write(queue.get(), "x", 1), "write");
    }

private:
    void make(const std::string& name, const std::string& durable) {
        server_.make_channel(
            name, "capacity 10000000\nbytes 8G\nhigh-watermark 100\ndurable " + durable + "\n");
        channels_.push_back(name);
    }
    Server server_;
    std::vector<std::string> channels_;
};

// What takes part, kept until the end.
class RateField {
public:
    explicit RateField(Run& run) : run_(run) {}
    // `empty` forgets what a round left behind, outside of what is timed.
    void add(const std::string& name, Senders senders, std::function<void()> empty,
             bool one_thread = false) {
        const Senders& kept = *all_.emplace_back(std::make_unique<Senders>(std::move(senders)));
        contest.add(name, [this, &kept, empty = std::move(empty), one_thread] {
            const auto lasting = static_cast<std::int64_t>(run_.count(kLasting));
            auto figures =
                (one_thread ? rate_of_one_thread : rate_of_threads)(kept, kBody, lasting);
            empty();
            return figures;
        });
    }
    Contest contest;

private:
    Run& run_;
    std::vector<std::unique_ptr<Senders>> all_;
};

void add_others(Run& run, RateField& field, std::vector<std::shared_ptr<void>>& kept) {
    const auto add = [&](const std::string& name, const auto& system) {
        const auto clients = [&](unsigned count) {
            Senders to;
            for (unsigned i = 0; i < count; ++i) to.push_back(system->sender());
            return to;
        };
        const auto empty = [one = system.get()] { one->empty(); };
        field.add(name + ", 1 client", clients(1), empty);
        field.add(name + ", 64 clients", clients(kManySenders), empty);
        field.add(name + ", 64 clients in one thread", clients(kManySenders), empty, true);
        kept.push_back(system);
    };
    if (Redis::there()) {
        add("Redis, appendfsync always", std::make_shared<Redis>(run, "always"));
        add("Redis, appendfsync everysec", std::make_shared<Redis>(run, "everysec"));
    }
    if (Nats::there()) add("NATS", std::make_shared<Nats>(run));
}

}  // namespace

void measure_durable_rates(Run& run) {
    struct statfs about {};
    must(statfs(run.options().directory.c_str(), &about), "statfs");
    if (about.f_type == kTmpfs) throw std::runtime_error("the directory for state is in memory");

    RateField field(run);
    std::vector<std::shared_ptr<void>> kept;
    run.progress("durable: starting the servers");
    {
        Senders disk;
        disk.push_back(
            std::make_unique<FileSender>(allocated_file(run.options().directory + "/disk"), true));
        field.add("write + fdatasync", std::move(disk), [] {});
    }
    add_others(run, field, kept);
    run.part([&] {
        auto store = std::make_shared<StoreUnderTest>(run.options().directory + "/store");
        const auto empty = [one = store.get()] { one->empty(); };
        for (const bool waits : {true, false}) {
            Senders one;
            one.push_back(store->sender(waits));
            field.add(waits ? "store, 1 thread" : "store, async, 1 thread", std::move(one), empty);
        }
        field.contest.add("store, 64 waiting", [&run, one = store.get()] {
            const auto lasting = static_cast<std::int64_t>(run.count(kLasting));
            auto figures = one->rate_of_waiting(kManySenders, kBody, lasting);
            one->empty();
            return figures;
        });
        kept.push_back(std::move(store));
    });
    std::vector<std::string> transports;
    for (const Transport transport : kTransports) {
        run.part([&] {
            auto ipcfs = std::make_shared<Ipcfs>(run, transport);
            const std::string on = std::string(", ") + name_of(transport);
            const auto empty = [one = ipcfs.get()] { one->empty(); };
            for (const unsigned count : {1U, kManySenders}) {
                const std::string many = ", " + std::to_string(count);
                field.add("header" + on + many, ipcfs->by_header("sync", count), empty);
                field.add("file" + on + many, ipcfs->by_file("sync", count, false), empty);
                field.add("async" + on + many, ipcfs->by_header("async", count), empty);
                field.add("off" + on + many, ipcfs->by_header("off", count), empty);
            }
            field.add("own" + on + ", 64", ipcfs->by_file("own", kManySenders, true), empty);
            kept.push_back(std::move(ipcfs));
            transports.push_back(on);
        });
    }
    run.progress("durable: rates");
    field.contest.run(std::min(run.rounds(), 11U));

    const auto row = [&](const std::string& what, const std::string& subject,
                         const std::string& baseline, Target target = {}) {
        run.add(field.contest.row(what, subject, baseline, target, "msg/s"));
    };
    const std::string sync = "sync 1 KiB, ", always = "Redis, appendfsync always";
    for (const auto& on : transports) {
        row(sync + "1 sender" + on, "header" + on + ", 1", "write + fdatasync");
        row(sync + "1 sender" + on, "header" + on + ", 1", always + ", 1 client",
            ratio_at_least(1));
        row(sync + "1 sender" + on, "header" + on + ", 1", "NATS, 1 client");
        row(sync + "64 senders" + on, "header" + on + ", 64", "header" + on + ", 1",
            ratio_at_least(20));
        row(sync + "64 senders" + on, "header" + on + ", 64", always + ", 64 clients",
            ratio_at_least(1));
        row(sync + "64 senders" + on, "header" + on + ", 64",
            always + ", 64 clients in one thread");
        row(sync + "64 senders" + on, "header" + on + ", 64", "NATS, 64 clients");
        row(sync + "64 senders" + on, "header" + on + ", 64", "NATS, 64 clients in one thread");
        row(sync + "1 sender, write(2)" + on, "file" + on + ", 1", "header" + on + ", 1");
        row(sync + "64 senders, write(2), one file" + on, "file" + on + ", 64",
            "file" + on + ", 1");
        row(sync + "64 senders, write(2), 64 channels" + on, "own" + on + ", 64",
            "file" + on + ", 1");
        row("async 1 KiB, 1 sender" + on, "async" + on + ", 1", "off" + on + ", 1");
        row("async 1 KiB, 1 sender" + on, "async" + on + ", 1", "NATS, 1 client");
        row("async 1 KiB, 64 senders" + on, "async" + on + ", 64", "off" + on + ", 64");
        row("async 1 KiB, 64 senders" + on, "async" + on + ", 64",
            "Redis, appendfsync everysec, 64 clients");
        row("async 1 KiB, 64 senders" + on, "async" + on + ", 64", "NATS, 64 clients");
        for (const std::size_t which : {std::size_t{1}, std::size_t{2}}) {
            run.add(field.contest.row(sync + "64 senders" + on + (which == 1 ? ", p50" : ", p99"),
                                      "header" + on + ", 64", always + ", 64 clients", {}, "ns",
                                      which));
        }
    }
    row("store alone, sync, 1 thread", "store, 1 thread", "write + fdatasync");
    row("store alone, sync, 64 waiting", "store, 64 waiting", "store, 1 thread");
    row("store alone, sync, 64 waiting", "store, 64 waiting", always + ", 64 clients");
    row("store alone, async, 1 thread", "store, async, 1 thread", "store, 1 thread");
    for (const auto& system : {always, std::string("NATS")}) {
        row(system + ", 1 client", system + ", 1 client", "write + fdatasync");
        row(system + ", 64 clients", system + ", 64 clients", system + ", 1 client");
        row(system + ", 64 clients in one thread", system + ", 64 clients in one thread",
            system + ", 1 client");
    }
}

void run_durable(Run& run) {
    run.part([&] { measure_durable_rates(run); });
    run.part([&] { measure_recovery_of_the_store(run); });
    run.part([&] { measure_cleaning(run); });
    run.part([&] { measure_recovery(run); });
}

}  // namespace ipcfs::bench
