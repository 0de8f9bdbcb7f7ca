// Group payload: the time to hand over memory of any size, nothing but its first byte touched, beside
// a small message on the same path; to take a chunk of a pool; and to seal and hand over memory that
// was filled, beside the time to fill it.
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "actor.hpp"
#include "bulk.hpp"
#include "payload.hpp"
#include "payload_client.hpp"
#include "servers.hpp"

namespace ipcfs::bench {
namespace {

constexpr std::size_t kSmall = 64;
constexpr std::size_t kPooledSizes[] = {kSmall, kMiB, 64 * kMiB, kGiB};
constexpr std::size_t kSealedSizes[] = {64 * kKiB, kMiB, 64 * kMiB, kGiB};

// A channel as one process uses it: for messages of 64 B (size 0), or for chunks of `size` bytes.
class Handing {
public:
    Handing(const std::string& path, std::size_t size)
        : channel_(need(Channel::open(path))), size_(size) {}

    void send() {
        if (size_ == 0) {
            need(channel_.send(std::as_bytes(std::span(small_))));
        } else {
            need(channel_.send(need(channel_.loan(size_))));
        }
    }
    void receive() {
        const Message message = need(channel_.receive());
        if (message.size() != (size_ == 0 ? kSmall : size_)) {
            throw std::runtime_error("a message has another size");
        }
        first_ = message.body().front();
    }
    void take_loan() { const Loan lent = need(channel_.loan(size_)); }

private:
    Channel channel_;
    const std::size_t size_;
    char small_[kSmall]{};
    volatile std::byte first_{};  // makes the look at it happen
};

std::string contestant(std::size_t size) {
    return size == 0 ? "64 B message" : size_name(size) + " pooled";
}

// One process, sender and receiver in turn.
class Alone {
public:
    Alone(const std::string& path, std::size_t size)
        : actor_(contestant(size), [path, size] {
              run_on(Place::kOneCpu);
              auto end = std::make_shared<Handing>(path, size);
              return [end](std::uint64_t count) {
                  return Figures{time_each(static_cast<unsigned>(count), [&] {
                      end->send();
                      end->receive();
                  })};
              };
          }) {}
    Round round(unsigned count) {
        return [this, count] { return actor_.act(count); };
    }

private:
    Actor actor_;
};

// Two processes on one CPU; each waits for the other's before it sends its own.
class ToAndFro {
public:
    ToAndFro(const std::string& there, const std::string& back, std::size_t size)
        : pong_(contestant(size) + ", pong", [=] { return end(back, there, size, false); }),
          ping_(contestant(size) + ", ping", [=] { return end(there, back, size, true); }) {}
    // `count` is a multiple of 40, as time_each() does it.
    Round round(unsigned count) {
        return [this, count] {
            pong_.start(count);
            Figures took = ping_.act(count);
            pong_.finish();
            return took;
        };
    }

private:
    static Actor::Act end(const std::string& sending, const std::string& receiving,
                          std::size_t size, bool first) {
        run_on(Place::kSameCpu);
        auto to = std::make_shared<Handing>(sending, size);
        auto from = std::make_shared<Handing>(receiving, size);
        return [=](std::uint64_t count) {
            return Figures{time_each(static_cast<unsigned>(count), [&] {
                if (first) to->send();
                from->receive();
                if (!first) to->send();
            })};
        };
    }

    Actor pong_, ping_;
};

// Rows of the pooled sizes against the first contestant, the small message.
void add_rows(Run& run, const std::string& what, const std::vector<std::size_t>& sizes,
              const std::vector<Figures>& figures) {
    for (std::size_t i = 1; i < sizes.size(); ++i) {
        run.add({what + ", " + contestant(sizes[i]), figures[i][0], "ns", contestant(0),
                 figures[0][0], ratio_at_most(1.2)});
    }
}

// The sizes there is memory for, the small message first. Only pages that are touched cost any; the
// pools' accounts count all of it.
std::vector<std::size_t> sizes_to_hand_over(Run& run) {
    std::vector<std::size_t> sizes{0};
    for (const std::size_t size : kPooledSizes) {
        if (has_memory(run, "hand-over, " + contestant(size), size)) sizes.push_back(size);
    }
    return sizes;
}

void measure_pooled(Run& run, const Server& ipcfs, Transport transport) {
    const std::string by = name_of(transport);
    run.progress("payload: pooled hand-over, " + by);
    const std::vector<std::size_t> sizes = sizes_to_hand_over(run);
    std::deque<Alone> alone;
    std::deque<ToAndFro> pairs;
    std::vector<Round> rounds[2];
    const unsigned count = run.count(80) / 40 * 40 + 40;
    for (const std::size_t size : sizes) {
        const std::string names[] = {"a" + std::to_string(size), "b" + std::to_string(size),
                                     "c" + std::to_string(size)};
        for (const auto& name : names) {
            ipcfs.make_channel(name, size == 0 ? "" : "payloads pooled\n");
        }
        alone.emplace_back(ipcfs.at(names[0]), size);
        rounds[0].push_back(alone.back().round(count));
        pairs.emplace_back(ipcfs.at(names[1]), ipcfs.at(names[2]), size);
        rounds[1].push_back(pairs.back().round(count));
    }
    ipcfs.put(Place::kOneCpu);
    add_rows(run, "send + receive, " + by, sizes, interleave(run.rounds(), rounds[0]));
    ipcfs.put(Place::kSameCpu);
    add_rows(run, "ping-pong, " + by, sizes, interleave(run.rounds(), rounds[1]));
    ipcfs.put(Place::kFree);
}

void measure_loans(Run& run, const Server& ipcfs) {
    run.progress("payload: loans");
    for (const std::size_t size : kPooledSizes) {
        if (!has_memory(run, "loan, " + size_name(size), size)) continue;
        const std::string name = "loans" + std::to_string(size);
        ipcfs.make_channel(name, "payloads pooled\n");
        Actor actor("loans", [path = ipcfs.at(name), size] {
            run_on(Place::kOneCpu);
            auto end = std::make_shared<Handing>(path, size);
            end->take_loan();
            return [end](std::uint64_t count) {
                return Figures{time_each(static_cast<unsigned>(count), [&] { end->take_loan(); })};
            };
        });
        const auto figures = interleave(run.rounds(), {[&] { return actor.act(run.count(4000)); }});
        run.add({"loan taken and given back, warm pool, " + size_name(size), figures[0][0], "ns",
                 "", std::nullopt, value_below(1000)});
    }
}

void measure_sealing(Run& run, const Server& ipcfs, Transport transport) {
    const std::string by = name_of(transport);
    run.progress("payload: sealing and hand-over, " + by);
    for (const std::size_t size : kSealedSizes) {
        const std::string what = "seal and hand over, " + by + ", " + size_name(size);
        if (!has_memory(run, what, 3 * size)) continue;
        const std::string name = "sealed" + std::to_string(size);
        ipcfs.make_channel(name);
        Actor actor("sealed", [path = ipcfs.at(name), size] {
            run_on(Place::kOneCpu);
            auto channel = std::make_shared<Channel>(need(Channel::open(path)));
            return [channel, size](std::uint64_t count) {
                std::vector<double> filling, sending;
                for (std::uint64_t i = 0; i < count; ++i) {
                    const std::int64_t from = now_ns();
                    Loan loan = need(channel->loan(size));
                    fill(loan.bytes(), static_cast<std::byte>(i));
                    const std::int64_t filled = now_ns();
                    need(channel->send(std::move(loan)));
                    sending.push_back(static_cast<double>(now_ns() - filled));
                    filling.push_back(static_cast<double>(filled - from));
                    need(channel->receive());
                }
                return Figures{median(std::move(filling)), median(std::move(sending))};
            };
        });
        const unsigned count = size >= 64 * kMiB ? 1 : run.count(40);
        const auto figures = interleave(large_rounds(run, size >= 64 * kMiB ? 9 : 31),
                                        {warmed(size, [&] { return actor.act(count); })});
        run.add({what, figures[0][1], "ns", "getting and filling it", figures[0][0],
                 ratio_at_most(0.05)});
    }
}

}  // namespace

void measure_handover(Run& run) {
    for (const Transport transport : kTransports) {
        const Server ipcfs(run, Server::Program::kIpcfs, transport);
        run.part([&] { measure_pooled(run, ipcfs, transport); });
        if (transport == kTransports[0]) run.part([&] { measure_loans(run, ipcfs); });
        run.part([&] { measure_sealing(run, ipcfs, transport); });
    }
}

}  // namespace ipcfs::bench
