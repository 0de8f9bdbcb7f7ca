// Random operations on queues and sync channels, against the oracle.
#include "channel_model_run.hpp"

namespace ipcfs::channel {
namespace {

TEST(ChannelModel, AQueueDoesWhatItsOracleDoes) {
    play(Play::kQueue);
}

TEST(ChannelModel, ASyncChannelDoesWhatItsOracleDoes) {
    play(Play::kSync);
}

}  // namespace
}  // namespace ipcfs::channel
