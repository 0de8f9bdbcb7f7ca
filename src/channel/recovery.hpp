// Makes channels and messages again from what the store kept. Called by the store, on one thread, before
// the daemon serves anybody. What cannot be made again is never passed over in silence: each case is a
// line in problems().
#pragma once

#include <functional>
#include <map>
#include <string>
#include <unordered_set>
#include <vector>

#include <payload/payload.hpp>
#include <store/store.hpp>

#include <channel/records.hpp>
#include <channel/registry.hpp>

namespace ipcfs::channel {

class Recovered final : public store::Recovery {
public:
    Recovered(Registry& registry, payload::Store& payloads, store::Store& store);

    void channel(std::uint64_t id, std::span<const std::byte> record,
                 std::uint64_t last_sequence) override;
    void message(const store::Recovered& message) override;
    void request(std::uint64_t id) override { requests_.insert(id); }
    // After store::Store::recover().
    void finish();

    std::uint64_t channels() const noexcept { return channels_; }
    std::uint64_t messages() const noexcept { return messages_; }
    const std::vector<std::string>& problems() const noexcept { return problems_; }
    // Requests that the daemon before has done, perhaps without an answer.
    std::unordered_set<std::uint64_t> take_requests() { return std::move(requests_); }

private:
    void problem(std::string text);
    Result<queue::MessageRef> make(const store::Recovered& from, Channel& of);
    Result<payload::PayloadPtr> payload(std::uint64_t id, std::uint64_t channel, uid_t uid);

    static constexpr std::size_t kMostProblems = 1000;

    Registry& registry_;
    payload::Store& payloads_;
    store::Store& store_;
    Environment& env_;
    const Nanos epoch_;  // real time less monotonic time
    std::shared_ptr<Channel> current_;
    std::uint64_t current_id_ = 0;
    std::map<store::Key, queue::MessageRef> origins_;
    struct Unpublished {
        std::shared_ptr<Channel> topic;
        queue::MessageRef message;
    };
    std::vector<Unpublished> unpublished_;
    std::map<std::uint64_t, payload::PayloadPtr> saved_;
    std::unordered_set<std::uint64_t> requests_;
    std::uint64_t channels_ = 0, messages_ = 0, lost_ = 0;
    std::vector<std::string> problems_;
};

}  // namespace ipcfs::channel
