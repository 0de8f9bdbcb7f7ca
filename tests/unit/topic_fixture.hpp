// Shared by tests of topics.
#pragma once

#include "engine_fixture.hpp"
#include <channel/filter.hpp>
#include <channel/subscription.hpp>
#include <ipcfs/frame.hpp>

namespace ipcfs::channel {

inline constexpr access::Subject kReader{1001, 1001, 0, 0};

// A registry with topics; publishers are charged like those of files.
struct Topics {
    World world;
    Registry registry{world.env, Settings{}, 4};
    access::Account& owner = world.ledger.account(1000);
    access::Account& publisher = world.ledger.account(1002);
    access::Account& reader = world.ledger.account(kReader.uid);

    std::shared_ptr<Channel> make(std::uint64_t parent, std::string_view name,
                                  const std::string& settings = "type topic") {
        Attributes attributes;
        attributes.mode = 0755;
        auto made = registry.create(parent, name, attributes, owner);
        EXPECT_TRUE(made) << made.error().operation;
        auto done = (*made)->control(settings);
        EXPECT_TRUE(done) << done.error().operation;
        return *made;
    }
    std::shared_ptr<Channel> topic(const std::string& settings = "type topic") {
        return make(Registry::kRootId, "t", settings);
    }
    Result<std::shared_ptr<Channel>> name(const std::shared_ptr<Channel>& topic,
                                          std::string_view name) {
        Attributes attributes;
        attributes.uid = kReader.uid;
        attributes.gid = kReader.gid;
        return registry.create(topic->id(), name, attributes, reader, Role::kSubscription);
    }
    std::shared_ptr<Channel> named(const std::shared_ptr<Channel>& topic, std::string_view called,
                                   const std::string& filter = {},
                                   const std::string& settings = {}) {
        auto made = name(topic, called);
        EXPECT_TRUE(made) << made.error().operation;
        if (!filter.empty()) {
            auto done = (*made)->subscription()->set_filter(filter);
            EXPECT_TRUE(done) << done.error().operation;
        }
        if (!settings.empty()) {
            auto done = (*made)->control(settings);
            EXPECT_TRUE(done) << done.error().operation;
        }
        return *made;
    }
    std::shared_ptr<Subscription> follow(const std::shared_ptr<Channel>& topic,
                                         const std::string& filter = {}) {
        auto made = topic->subscribe(kReader, reader);
        EXPECT_TRUE(made);
        if (!filter.empty()) {
            auto done = made->set_filter(filter);
            EXPECT_TRUE(done) << done.error().operation;
        }
        return made;
    }

    queue::MessageRef message(std::string_view body, std::uint8_t priority = queue::kNormal,
                              const std::vector<std::string>& groups = {},
                              std::string_view method = {}) {
        std::vector<std::byte> extensions;
        for (const std::string& group : groups) {
            append_extension(extensions, ExtensionType::kGroup, std::as_bytes(std::span(group)));
        }
        if (!method.empty()) {
            append_extension(extensions, ExtensionType::kMethod, std::as_bytes(std::span(method)));
        }
        auto made = world.pool.make(extensions, std::as_bytes(std::span(body)));
        made->envelope.priority = priority;
        made->envelope.sender = {publisher.uid(), publisher.uid(), 77, 77};
        made->charged_message = *access::Charge::take(publisher, access::Resource::kMessages, 1);
        made->charged_bytes =
            *access::Charge::take(publisher, access::Resource::kBytes, made->size());
        return made;
    }
    Push publish(Channel& to, std::string_view body, std::uint8_t priority = queue::kNormal,
                 const std::vector<std::string>& groups = {}, std::string_view method = {}) {
        queue::Batch one;
        one.add(message(body, priority, groups, method));
        return to.try_push(one, queue::Via::kOther, false, nullptr);
    }
    std::uint64_t messages_of(const access::Account& account) const {
        return account.used(access::Resource::kMessages);
    }
    std::uint64_t bytes_of(const access::Account& account) const {
        return account.used(access::Resource::kBytes);
    }
};

}  // namespace ipcfs::channel
