// What the files that show a text say, and what those that take one do with it: the functions that the
// table of files names. Private to src/tree. Any thread; each text is one consistent snapshot of a channel.
#pragma once

#include <string>
#include <string_view>

#include <access/subject.hpp>
#include <base/result.hpp>
#include <tree/file_kind.hpp>

namespace ipcfs::tree {

// Of a channel.
std::string main_peek_text(Tree& tree, const ChannelPtr& channel);
std::string dead_peek_text(Tree& tree, const ChannelPtr& channel);
std::string filter_text(Tree& tree, const ChannelPtr& channel);
std::string ctl_text(Tree& tree, const ChannelPtr& channel);
std::string status_text(Tree& tree, const ChannelPtr& channel);
std::string stats_text(Tree& tree, const ChannelPtr& channel);
// Of the system; `channel` is null.
std::string messages_text(Tree& tree, const ChannelPtr& channel);
std::string channels_text(Tree& tree, const ChannelPtr& channel);
std::string notifications_text(Tree& tree, const ChannelPtr& channel);
std::string mappings_text(Tree& tree, const ChannelPtr& channel);
std::string resources_text(Tree& tree, const ChannelPtr& channel);
std::string config_text(Tree& tree, const ChannelPtr& channel);
std::string version_text(Tree& tree, const ChannelPtr& channel);
std::string settings_text(Tree& tree, const ChannelPtr& channel);

// A fault's code is the error of the write.
Result<void> take_filter(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by);
Result<void> take_ctl(Tree& tree, const ChannelPtr& channel, std::string_view text,
                      const access::Subject& by);
Result<void> take_config(Tree& tree, const ChannelPtr& channel, std::string_view text,
                         const access::Subject& by);
bool is_slow_ctl(std::string_view text);

}  // namespace ipcfs::tree
