// The texts and extensions of a parsed request of the control socket, in the order of its packet.
#pragma once

#include <string_view>
#include <vector>

#include <control/packet.hpp>

namespace ipcfs::test {

struct TextsOf {
    using Texts = std::vector<std::string_view>;
    static std::string_view extensions(const tree::MemoryMessage& message) {
        return {reinterpret_cast<const char*>(message.extensions.data()),
                message.extensions.size()};
    }

    Texts operator()(const control::Send& of) const { return message(of.message); }
    Texts operator()(const control::OfferLazy& of) const { return message(of.message); }
    Texts operator()(const control::OpenPool& of) const { return {of.path}; }
    Texts operator()(const control::WatchByEventFd& of) const { return {of.path, of.filter}; }
    Texts operator()(const control::WatchBySignal& of) const { return {of.path, of.filter}; }
    Texts operator()(const control::HandOff& of) const {
        return {of.path, of.region, of.message.path, extensions(of.message)};
    }
    Texts operator()(const auto&) const { return {}; }

private:
    static Texts message(const tree::MemoryMessage& of) { return {of.path, extensions(of)}; }
};

}  // namespace ipcfs::test
