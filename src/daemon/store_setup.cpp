// On the thread that starts the daemon.
#include <algorithm>
#include <chrono>
#include <thread>

#include <store/segment_store.hpp>

#include <channel/recovery.hpp>
#include <daemon/store_setup.hpp>

namespace ipcfs::daemon {
std::string store_path(const Config& config) {
    std::string name = config.mount.substr(std::min<std::size_t>(1, config.mount.size()));
    std::replace(name.begin(), name.end(), '/', '!');
    return config.state + "/store/" + name;
}

std::unique_ptr<store::Store> make_store(const Config& config, std::uint64_t first_generation,
                                         Logger& log) {
    if (config.store.kind == StoreKind::kOff) return nullptr;
    store::Options options;
    options.directory = store_path(config);
    options.max_bytes = config.store.max_size;
    options.first_generation = first_generation;
    return std::make_unique<store::SegmentStore>(std::move(options), log);
}

Result<std::unordered_set<std::uint64_t>> recover(store::Store& store, channel::Registry& registry,
                                                  payload::Store& payloads, Logger& log) {
    channel::Environment& env = registry.environment();
    const Nanos began = env.clock.monotonic();
    channel::Recovered recovered(registry, payloads, store);
    auto done = store.recover(recovered);
    // A daemon that was killed a moment ago may still be on its way out.
    for (int i = 0; i < 100 && !done && done.error().code == EBUSY; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        done = store.recover(recovered);
    }
    if (!done) return done.error();
    recovered.finish();
    for (const std::string& problem : recovered.problems()) {
        log.error("durable channels: lost: ", problem);
    }
    const store::Health health = store.health();
    if (!health.text.empty()) log.warn("durable channels: ", health.text);
    // What an earlier life gave out is never given again: a client's kernel may still know it.
    constexpr unsigned kLifeBits = 32;
    const std::uint64_t life = (store.generation() - 1) << kLifeBits;
    registry.start_ids(life + 1);
    payloads.start_ids(std::max(life + 1, store.first_free_payload()));
    env.messages.start_ids(life + 1);
    if (recovered.channels() > 0) {
        log.info(
            "durable: ", recovered.channels(), " channels with ", recovered.messages(),
            " messages are there again, after ", (env.clock.monotonic() - began) / kMillisecond,
            " ms",
            store.may_have_lost_marks() ? "; power was lost: all of them may have been seen" : "");
    }
    return recovered.take_requests();
}

}  // namespace ipcfs::daemon
