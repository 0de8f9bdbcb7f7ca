// Typed<T>: a channel for values of one trivially copyable type. Each message carries the type's
// size and hash in its content type, and the receiver rejects all others: the compiler checks T at
// the sender, the receiver checks every message. Threads and fork: as Channel.
//
// The hash covers the type's name as the compiler writes it, its size and its alignment. A member
// `static constexpr std::string_view ipcfs_type = "name/1"` sets the name explicitly: to be
// independent of compiler and namespace, or to distinguish two layouts of the same size. Padding in
// T is sent unchanged, so clear it if a receiver of another user must not see its content.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <ipcfs/channel.hpp>

namespace ipcfs {
namespace detail {

template <class T>
constexpr std::string_view type_name() {
    if constexpr (requires { std::string_view(T::ipcfs_type); }) {
        return T::ipcfs_type;
    } else {
        // gcc "... [with T = Name; ...]", clang "... [T = Name]".
        constexpr std::string_view whole = __PRETTY_FUNCTION__;
        constexpr std::size_t from = whole.find("T = ") + 4;
        constexpr std::size_t end = whole.find_first_of(";]", from);
        return whole.substr(from, end - from);
    }
}

// FNV-1a, 64 bits.
constexpr std::uint64_t hash_text(std::string_view text, std::uint64_t hash) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

template <class T>
constexpr std::uint64_t type_hash() {
    std::uint64_t hash = hash_text(type_name<T>(), 0xcbf29ce484222325U);
    for (const std::uint64_t part : {std::uint64_t{sizeof(T)}, std::uint64_t{alignof(T)}})
        hash = (hash ^ part) * 0x100000001b3U;
    return hash;
}

}  // namespace detail

template <class T>
concept Sendable =
    std::is_trivially_copyable_v<T> && std::is_object_v<T> && !std::is_pointer_v<T> &&
    !std::is_member_pointer_v<T> && std::is_default_constructible_v<T>;

template <Sendable T>
class Typed {
public:
    // A received value and its message.
    struct Received {
        T value;
        Message message;
    };

    static Expected<Typed> open(std::string_view name, ChannelOptions options = {}) {
        auto channel = Channel::open(name, options);
        if (!channel) return std::move(channel).error();
        return Typed(std::move(*channel));
    }
    explicit Typed(Channel channel) : channel_(std::move(channel)) {}

    // As Channel::send. EINVAL also if the extensions leave no room for the content type.
    Expected<void> send(const T& value, SendOptions options = {}) {
        const auto body = std::as_bytes(std::span(&value, 1));
        std::vector<std::byte> extensions(options.extensions.begin(), options.extensions.end());
        if (!append_extension(extensions, ExtensionType::kContentType,
                              std::as_bytes(std::span(content_type()))))
            return Error{EINVAL, "send typed", "too many extensions"};
        options.extensions = extensions;
        return channel_.send(body, options);
    }
    Expected<void> try_send(const T& value, SendOptions options = {}) {
        options.timeout = Timeout::zero();
        return send(value, options);
    }

    // As Channel::receive. EBADMSG: an untyped message or one of another type; it is consumed.
    Expected<Received> receive_with_message(Timeout timeout = kForever) {
        auto message = channel_.receive(timeout);
        if (!message) return std::move(message).error();
        auto value = from(*message);
        if (!value) return std::move(value).error();
        return Received{*value, std::move(*message)};
    }
    Expected<T> receive(Timeout timeout = kForever) {
        auto received = receive_with_message(timeout);
        if (!received) return std::move(received).error();
        return received->value;
    }
    Expected<T> try_receive() { return receive(Timeout::zero()); }

    // The value of a message that was received in another way. EBADMSG as above; errors of
    // Payload::map().
    static Expected<T> from(const Message& message) {
        const auto said = message.extension(ExtensionType::kContentType);
        const std::string_view text = said ? detail::as_text(*said) : std::string_view();
        if (text != content_type())
            return Error{EBADMSG, "receive typed",
                         "the message is " + (text.empty() ? "untyped" : std::string(text)) +
                             ", not " + content_type()};
        auto body = message.map();
        if (!body) return std::move(body).error();
        if (body->size() != sizeof(T))
            return Error{EBADMSG, "receive typed", "the body has another size than the type"};
        T value;
        std::memcpy(&value, body->data(), sizeof value);
        return value;
    }

    // "ipcfs.typed;size=16;hash=0123456789abcdef"
    static const std::string& content_type() {
        static const std::string text = [] {
            char hash[24];
            std::snprintf(hash, sizeof hash, "%016llx",
                          static_cast<unsigned long long>(detail::type_hash<T>()));
            return "ipcfs.typed;size=" + std::to_string(sizeof(T)) + ";hash=" + hash;
        }();
        return text;
    }

    Channel& channel() noexcept { return channel_; }

private:
    Channel channel_;
};

}  // namespace ipcfs
