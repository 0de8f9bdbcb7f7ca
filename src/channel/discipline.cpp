// Which type is which discipline.
#include <array>

#include <channel/discipline.hpp>

namespace ipcfs::channel {

namespace {

using Make = std::unique_ptr<Discipline> (*)(Channel&);

// In the order of Type.
constexpr std::array<Make, 6> kTypes{
    make_queue,   // queue
    make_sync,    // sync
    make_queue,   // batch: its gate is a setting
    make_topic,   // topic
    make_topic,   // multicast: filters look at groups, too
    make_stream,  // stream
};

}  // namespace

std::unique_ptr<Discipline> make_discipline(Type type, Channel& channel) {
    return kTypes[static_cast<std::size_t>(type)](channel);
}

}  // namespace ipcfs::channel
