// Type stream: as at a FIFO, readers come to the end when nobody writes any more; what is left is read first.
#include <channel/discipline.hpp>

namespace ipcfs::channel {
namespace {

class Stream final : public Discipline {
public:
    using Discipline::Discipline;
    bool has_ended(const StreamView& view) const noexcept override {
        return !core_.flow.held() && core_.backlog.empty() && core_.open_writers == 0 &&
               (closings_ > view.since || view.has_read);
    }
    std::uint64_t closings() const noexcept override { return closings_; }
    bool last_writer_closed() noexcept override {
        ++closings_;
        return true;
    }

private:
    std::uint64_t closings_ = 0;
};

}  // namespace

std::unique_ptr<Discipline> make_stream(Core& core) {
    return std::make_unique<Stream>(core);
}

}  // namespace ipcfs::channel
