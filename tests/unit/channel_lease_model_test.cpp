// Random operations on channels whose messages are leased, against the oracle: every message is in
// exactly one of queued, delayed, leased, dead and gone, and it is the same one in both.
#include "channel_model_run.hpp"

namespace ipcfs::channel {
namespace {

TEST(ChannelLeaseModel, AQueueWithLeasesDoesWhatItsOracleDoes) {
    play(Play::kLeases);
}

TEST(ChannelLeaseModel, ABatchChannelDoesWhatItsOracleDoes) {
    play(Play::kBatch);
}

}  // namespace
}  // namespace ipcfs::channel
