// Any thread.
#include <channel/channel.hpp>
#include <channel/locked.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

Subscription::Subscription(Channel& channel, std::weak_ptr<Channel> topic,
                           const access::Subject& subscriber, access::Account& account,
                           bool is_named)
    : channel_(channel),
      topic_(std::move(topic)),
      subscriber_(subscriber),
      account_(account),
      is_named_(is_named) {}

Subscription::~Subscription() = default;

std::string Subscription::filter() const {
    return {};
}

Result<void> Subscription::set_filter(std::string_view) {
    return {};
}

void Subscription::end() noexcept {
    if (auto topic = topic_.lock()) topic->detach(*this);
}

}  // namespace ipcfs::channel
