// Any thread.
#include <channel/channel.hpp>
#include <channel/filter.hpp>
#include <channel/locked.hpp>
#include <channel/subscription.hpp>

namespace ipcfs::channel {

Subscription::Subscription(Channel& channel, std::weak_ptr<Channel> topic,
                           access::Identity subscriber, access::Account& account, bool is_named)
    : channel_(channel),
      topic_(std::move(topic)),
      subscriber_(std::move(subscriber)),
      account_(account),
      is_named_(is_named) {}

Subscription::~Subscription() = default;

std::shared_ptr<const Filter> Subscription::shared_filter() const {
    return chosen_.with([](const Chosen& chosen) { return chosen.filter; });
}

std::string Subscription::filter() const {
    auto filter = shared_filter();
    return filter ? filter->text() : std::string();
}

Result<void> Subscription::set_filter(std::string_view text) {
    auto refuse = [&](Fault fault) {
        fault.operation = "filter: " + fault.operation;
        channel_.note_error(fault.operation);
        return fault;
    };
    auto parsed = Filter::parse(text);
    if (!parsed) return refuse(parsed.error());
    std::shared_ptr<const Filter> filter = std::move(*parsed);
    access::Charge charge;
    if (filter->text().empty()) {
        filter.reset();
    } else {
        auto taken = access::Charge::take(account_, access::Resource::kBytes, filter->bytes());
        if (!taken) return refuse({EDQUOT, "the user's limit of bytes is reached"});
        charge = std::move(*taken);
    }
    if (auto topic = topic_.lock()) {
        topic->change_filter(*this, filter, charge);
    } else {
        install(filter, charge);
    }
    const Environment& env = channel_.environment();
    if (is_named_ && env.keep_record && channel_.settings().durable != Durable::kOff) {
        if (auto kept = env.keep_record(channel_.id(), nullptr); !kept) {
            channel_.note_error("store: " + kept.error().message());
        }
    }
    return {};
}

// Under the topic's lock while it is in none of its lists.
void Subscription::install(std::shared_ptr<const Filter>& filter, access::Charge& charge) noexcept {
    active_ = filter.get();
    wants_topic_ = !filter || filter->reaches("");
    is_recursive_.store(filter && filter->is_recursive(), std::memory_order_relaxed);
    chosen_.with([&](Chosen& chosen) {
        chosen.filter.swap(filter);
        std::swap(chosen.charge, charge);
    });
}

void Subscription::leave() noexcept {
    if (auto topic = topic_.lock()) topic->detach(*this);
}

void Subscription::end() noexcept {
    if (is_over_.exchange(true)) return;
    leave();
    channel_.close_down();
}

}  // namespace ipcfs::channel
