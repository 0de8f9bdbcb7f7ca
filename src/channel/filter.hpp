// What a subscription takes: conditions on priority, type, method, sender, content, group and on the
// publishing channel, as the file `filter` has them, one `key value` a line. All of them must hold. A
// filter is parsed whole, and never changes. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <sys/types.h>
#include <vector>

#include <base/result.hpp>
#include <channel/glob.hpp>
#include <queue/message.hpp>

namespace re2 {
class RE2;
}

namespace ipcfs::channel {

constexpr std::size_t kMaxFilter = 65536;        // bytes of its text
constexpr std::size_t kMaxRegex = 4096;          // bytes of one
constexpr std::size_t kFilteredContent = 65536;  // bytes of a content that conditions look at

// A message that is being published. What filters ask of it is worked out once, when first asked.
class Examined {
public:
    explicit Examined(const queue::Message& message) : message_(message) {}
    const queue::Envelope& envelope() const noexcept { return message_.envelope; }
    // Of the extensions: empty when there is none.
    std::string_view method() noexcept;
    const std::vector<std::string_view>& groups() noexcept;
    // The beginning of the content, wherever it is.
    std::string_view content();

private:
    void read_extensions() noexcept;
    const queue::Message& message_;
    bool has_read_ = false;
    std::string_view method_;
    std::vector<std::string_view> groups_;
    std::optional<std::string> copied_;  // of a payload
};

class Filter {
public:
    // The uid of a user's name.
    using Users = std::function<std::optional<uid_t>(const std::string& name)>;

    // EINVAL with the line's number and the reason. An empty text takes everything. May look into the
    // user database: not under a lock.
    static Result<std::shared_ptr<const Filter>> parse(std::string_view text,
                                                       const Users& users = system_users());
    static Users system_users();

    // Whether it wants what is published at `path` below the subscribed topic; "" is the topic itself.
    bool reaches(std::string_view path) const { return !channel_ || channel_->matches(path); }
    // Whether it takes this one; `in_reach` is what reaches() said of where it is published. On a
    // multicast, the groups that it names are enough, and a filter of groups alone takes no others.
    bool matches(Examined& message, bool in_reach, bool is_multicast) const;

    bool is_recursive() const noexcept { return is_recursive_; }
    // The same again as text, always in the same form: parse() of it gives the same filter.
    const std::string& text() const noexcept { return text_; }
    // What it takes of the daemon's memory, at most.
    std::uint64_t bytes() const noexcept;

    Filter();
    ~Filter();
    Filter(const Filter&) = delete;
    Filter& operator=(const Filter&) = delete;

private:
    Result<void> set(std::string_view key, std::string_view value, const Users& users);
    Result<void> set_priority(std::string_view value);
    Result<void> set_types(std::string_view value);
    Result<void> set_sender(std::string_view value, const Users& users);
    Result<void> set_regex(std::string_view value);
    Result<void> set_groups(std::string_view value);
    void print();
    bool has_others() const noexcept;  // conditions beside groups
    bool others_hold(Examined& message, bool in_reach) const;
    bool names_group(Examined& message) const;

    bool has_priority_ = false;
    std::uint8_t lowest_ = 0, highest_ = 255;
    std::uint32_t types_ = 0;  // bit n: FrameType n; 0: all
    std::string method_text_, channel_text_, regex_text_;
    std::optional<Glob> method_, channel_;
    std::optional<uid_t> uid_;
    std::optional<pid_t> pid_;
    std::optional<std::string> prefix_;
    std::unique_ptr<const re2::RE2> regex_;
    std::vector<std::string> groups_;  // sorted
    bool is_recursive_ = false;
    bool has_recursive_ = false;
    std::string text_;
};

}  // namespace ipcfs::channel
