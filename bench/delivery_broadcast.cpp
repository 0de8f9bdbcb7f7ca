// Group delivery: what it costs to bring a message to 1, 10, 100 and 1,000 subscribers that all really
// receive it, beside a signal on a D-Bus of its own. Counted from the first publication until the last
// subscriber has the last message, the machine's whole time.
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "broadcast.hpp"
#include "contest.hpp"
#include "delivery.hpp"

namespace ipcfs::bench {
namespace {

constexpr unsigned kCounts[] = {1, 10, 100, 1000};
constexpr unsigned kBurst = 4;  // messages published one after the other

struct System {
    std::string name;
    const Broadcaster* broadcaster;
    Fleet::Way way;
    double most = 0;  // the target, times what D-Bus takes; 0: none
};

constexpr Fleet::Way kWays[] = {Fleet::Way::kEpoll, Fleet::Way::kEdge, Fleet::Way::kBlocked};
std::string name_of(Fleet::Way way) {
    return way == Fleet::Way::kEpoll ? "epoll" : way == Fleet::Way::kEdge ? "edge" : "blocked";
}

// ns a delivery, of three kinds: until received; until published; CPU time.
Round deliveries(Fleet& fleet, Sender& publisher, unsigned subscribers, unsigned bursts) {
    return [&fleet, &publisher, subscribers, bursts] {
        std::array<double, 3> sums{};
        for (unsigned i = 0; i < bursts; ++i) {
            const Figures one = fleet.publish(publisher, kBurst);
            for (std::size_t f = 0; f < sums.size(); ++f) sums[f] += one[f];
        }
        const double each = 1.0 / (static_cast<double>(subscribers) * kBurst * bursts);
        return Figures{sums[0] * each, sums[1] * each, sums[2] * each};
    };
}

std::string text_of(unsigned subscribers) {
    return subscribers == 1 ? "1 subscriber" : std::to_string(subscribers) + " subscribers";
}

}  // namespace

void measure_broadcasts(Run& run) {
    std::vector<System> systems;
    std::unique_ptr<DBus> dbus[std::size(kWays)];  // a bus each, so that none has another's rules
    const bool has_dbus = DBus::there();
    if (has_dbus) {
        for (auto& bus : dbus) bus = std::make_unique<DBus>(run);
        for (std::size_t i = 0; i < std::size(kWays); ++i)
            systems.push_back({"D-Bus, " + name_of(kWays[i]), dbus[i].get(), kWays[i]});
    }
    const std::size_t others = systems.size();
    std::vector<std::unique_ptr<Server>> servers;
    std::vector<std::unique_ptr<Topic>> topics;
    for (const Transport transport : kTransports) {
        run.part([&] {
            auto server = std::make_unique<Server>(run, Server::Program::kIpcfs, transport);
            const std::string on = name_of(transport);
            for (const bool framed : {false, true}) {
                for (const auto way : kWays) {
                    const std::string name = (framed ? "framed-" : "stream-") + name_of(way);
                    server->make_channel(name, "type topic\n");
                    topics.push_back(std::make_unique<Topic>(*server, name, framed));
                    // What the daemon chooses by itself is held to a target. Of a plain stream, each message
                    // costs its reader a request.
                    const bool is_held = transport == Transport::kUring;
                    const double most = framed || way == Fleet::Way::kBlocked ? 1 : 1.5;
                    systems.push_back(
                        {"ipcfs " + on + (framed ? ", framed, " : ", ") + name_of(way),
                         topics.back().get(), way, is_held ? most : 0});
                }
            }
            servers.push_back(std::move(server));
        });
    }
    std::vector<std::vector<double>> wall(systems.size());
    std::vector<double> wrong(systems.size());
    for (const unsigned subscribers : kCounts) {
        run.progress("delivery: " + text_of(subscribers));
        Contest contest;
        std::vector<std::unique_ptr<Fleet>> fleets;
        std::vector<std::unique_ptr<Sender>> publishers;
        for (const auto& system : systems) {
            fleets.push_back(std::make_unique<Fleet>(*system.broadcaster, subscribers, system.way));
            publishers.push_back(system.broadcaster->publisher());
            const unsigned bursts = std::max(1U, run.count(200) / (subscribers + 4));
            contest.add(system.name,
                        deliveries(*fleets.back(), *publishers.back(), subscribers, bursts));
        }
        contest.run(std::min(run.rounds(), 15U));
        for (std::size_t i = 0; i < systems.size(); ++i) {
            wall[i].push_back(*contest.figure(systems[i].name));
            wrong[i] += static_cast<double>(fleets[i]->wrong());
            if (i < others) continue;
            const std::string what = "delivery 64 B, " + text_of(subscribers) + ": ";
            const std::string baseline = "D-Bus, " + name_of(systems[i].way);
            const bool is_held = has_dbus && systems[i].most > 0 && subscribers > 1;
            run.add(contest.row(what + systems[i].name, systems[i].name, baseline,
                                is_held ? ratio_at_most(systems[i].most) : Target{}));
            run.add(contest.row(what + systems[i].name + ", CPU time", systems[i].name, baseline,
                                {}, "ns", 2));
        }
    }
    for (std::size_t i = 0; i < systems.size(); ++i) {
        for (std::size_t at = 2; at < std::size(kCounts); ++at) {
            run.add({"a delivery, of " + std::to_string(kCounts[at]) + ": " + systems[i].name,
                     wall[i][at], "ns", "of 10", wall[i][1],
                     systems[i].most > 0 ? ratio_at_most(1.5) : Target{}});
        }
        run.add({"lost, doubled or out of order: " + systems[i].name, wrong[i], "messages", "",
                 std::nullopt, value_at_most(0)});
    }
}

void run_delivery(Run& run) {
    run.part([&] { measure_broadcasts(run); });
    run.part([&] { measure_publishing(run); });
    run.part([&] { measure_leases(run); });
}

}  // namespace ipcfs::bench
