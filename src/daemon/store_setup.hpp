// The store of durable channels, opened, and what it kept, made again. On the thread that starts the
// daemon, before anybody is served.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>

#include <payload/payload.hpp>
#include <store/store.hpp>

#include <base/log.hpp>
#include <base/result.hpp>
#include <channel/registry.hpp>
#include <daemon/config.hpp>

namespace ipcfs::daemon {

// The store directory of a mount: one of its own below the state directory.
std::string store_path(const Config& config);

// Null for store.kind "off". Nothing is read yet. Ids of a generation are never given again:
// `first_generation` is that of a store that has no files yet.
std::unique_ptr<store::Store> make_store(const Config& config, std::uint64_t first_generation,
                                         Logger& log);

// Reads it all and fills the registry. Returns the requests that were done, perhaps without an answer.
// EPROTO: a newer ipcfs wrote it; EBUSY: another daemon has it. Losses are logged, one by one.
Result<std::unordered_set<std::uint64_t>> recover(store::Store& store, channel::Registry& registry,
                                                  payload::Store& payloads, Logger& log);

}  // namespace ipcfs::daemon
