// Packets of the control socket: what is a request and what is none.
#include <cstring>
#include <random>
#include <string>

#include <control/packet.hpp>
#include <gtest/gtest.h>

#include "../common/request_texts.hpp"
#include "engine_fixture.hpp"

namespace ipcfs::control {
namespace {

template <class Body>
Packet packet(ControlOp op, const Body& body, std::string_view texts = {}, std::uint32_t tag = 7) {
    return make_packet(static_cast<std::uint16_t>(op), tag, 0, std::as_bytes(std::span(&body, 1)),
                       texts);
}
int error_of(const Packet& one, std::size_t fds) {
    auto request = parse_request(one, fds);
    return request ? 0 : request.error().code;
}

ControlSend send_of(std::string_view path, std::size_t extensions = 0) {
    ControlSend send;
    send.path_length = static_cast<std::uint32_t>(path.size());
    send.extensions_length = static_cast<std::uint32_t>(extensions);
    return send;
}

TEST(ControlPacket, GivesTheTextsThatItsStructureNames) {
    const Packet one = packet(ControlOp::kSend, send_of("jobs/a", 3), "jobs/aXYZ");
    auto request = parse_request(one, 1);
    ASSERT_TRUE(request) << request.error().operation;
    EXPECT_EQ(request->to.op, static_cast<std::uint16_t>(ControlOp::kSend));
    EXPECT_EQ(request->to.tag, 7u);
    const tree::MemoryMessage& message = std::get<Send>(request->body).message;
    EXPECT_EQ(message.path, "jobs/a");
    EXPECT_EQ(message.extensions.size(), 3u);
    EXPECT_EQ(std::memcmp(message.extensions.data(), "XYZ", 3), 0);
    EXPECT_EQ(message.envelope.priority, 128);
}

TEST(ControlPacket, GivesTheThreeNamesOfAHandoff) {
    ControlHandoff handoff;
    handoff.send = send_of("from", 1);
    handoff.name_length = 6;
    handoff.target_length = 2;
    auto one = packet(ControlOp::kHandoff, handoff, "fromregiontoE");
    auto request = parse_request(one, 0);
    ASSERT_TRUE(request) << request.error().operation;
    const auto& handed = std::get<HandOff>(request->body);
    EXPECT_EQ(handed.path, "from");
    EXPECT_EQ(handed.region, "region");
    EXPECT_EQ(handed.message.path, "to");
    EXPECT_EQ(handed.message.extensions.size(), 1u);
    EXPECT_EQ(handed.message.envelope.type, static_cast<std::uint8_t>(FrameType::kHandoff));
}

TEST(ControlPacket, RefusesMessagesThatAClientMayNotSend) {
    const auto refused = [](auto&& change) {
        ControlSend send = send_of("jobs");
        change(send);
        return error_of(packet(ControlOp::kSend, send, "jobs"), 1);
    };
    EXPECT_EQ(refused([](ControlSend& send) { send.flags = kFrameExpires; }), 0);
    EXPECT_EQ(refused([](ControlSend& send) { send.flags = kFrameRedelivered; }), EINVAL);
    EXPECT_EQ(refused([](ControlSend& send) { send.deadline = UINT64_MAX; }), EINVAL);
    for (unsigned type : {0U, 4U, 5U, 9U, 255U}) {  // 4, 5: capability, handoff
        EXPECT_EQ(refused([&](ControlSend& send) { send.type = static_cast<std::uint8_t>(type); }),
                  EINVAL)
            << type;
    }
    ControlWatch watch;
    watch.path_length = 4;
    for (std::uint32_t signal : {0U, 65U, UINT32_MAX}) {
        watch.signal = signal;
        EXPECT_EQ(error_of(packet(ControlOp::kSignal, watch, "jobs"), 0), EINVAL) << signal;
    }
}

TEST(ControlPacket, RefusesLengthsThatAreNotItsOwn) {
    const Packet whole = packet(ControlOp::kSend, send_of("jobs", 3), "jobsXYZ");
    EXPECT_EQ(error_of(whole, 1), 0);
    for (std::size_t size = 0; size < whole.size(); ++size) {
        Packet cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
        EXPECT_EQ(error_of(cut, 1), EINVAL) << size;
    }
    Packet longer = whole;
    longer.push_back(std::byte{0});
    EXPECT_EQ(error_of(longer, 1), EINVAL);
    ControlSend huge = send_of("jobs");
    huge.path_length = UINT32_MAX;
    huge.extensions_length = 5;  // their sum is 4 when it wraps
    EXPECT_EQ(error_of(packet(ControlOp::kSend, huge, "jobs"), 1), EINVAL);
}

TEST(ControlPacket, RefusesPathsThatNoFileOfTheTreeHas) {
    using namespace std::string_view_literals;
    for (std::string_view path : {""sv, "/jobs"sv, "jo\0bs"sv}) {
        EXPECT_EQ(error_of(packet(ControlOp::kSend, send_of(path), path), 1), EINVAL);
    }
}

TEST(ControlPacket, RefusesAnotherMagicVersionOrAnErrorInARequest) {
    const Packet good = packet(ControlOp::kHello, ControlHello{});
    EXPECT_EQ(error_of(good, 0), 0);
    for (std::size_t at : {0u, 4u, 12u}) {  // magic, version, error
        Packet bad = good;
        bad[at] ^= std::byte{1};
        EXPECT_EQ(error_of(bad, 0), EINVAL) << at;
    }
}

TEST(ControlPacket, RefusesOperationsThatAreNotARequest) {
    for (unsigned op : {0u, 15u, 0x4001u, 0x4002u, 0x8001u, 0xffffu}) {
        EXPECT_EQ(error_of(packet(static_cast<ControlOp>(op), ControlId{}), 0), EOPNOTSUPP) << op;
    }
}

TEST(ControlPacket, RefusesWhatIsReservedForLater) {
    EXPECT_EQ(error_of(packet(ControlOp::kHello, ControlHello{1, 1}), 0), EINVAL);
    ControlSend send = send_of("a");
    send.reserved = 1;
    EXPECT_EQ(error_of(packet(ControlOp::kSend, send, "a"), 1), EINVAL);
    ControlLazy lazy;
    lazy.length = 4096;
    EXPECT_EQ(error_of(packet(ControlOp::kLazyAttach, lazy), 2), 0);
    lazy.uid = 1;  // not for a client to say
    EXPECT_EQ(error_of(packet(ControlOp::kLazyAttach, lazy), 2), EINVAL);
    lazy.uid = 0;
    lazy.address = UINT64_MAX;
    EXPECT_EQ(error_of(packet(ControlOp::kLazyAttach, lazy), 2), EINVAL);
}

TEST(ControlPacket, WantsAsManyDescriptorsAsItsOperationTakes) {
    for (unsigned op = 1; op <= 14; ++op) {
        for (std::size_t fds = 0; fds <= 253; ++fds) {
            if (fds == wanted_fds(static_cast<ControlOp>(op))) continue;
            EXPECT_EQ(error_of(packet(static_cast<ControlOp>(op), ControlId{}), fds), EINVAL);
        }
    }
}

TEST(ControlPacket, CutsTheTextOfAnError) {
    const Packet error = make_error({2, 9}, Fault{EPERM, std::string(100'000, 'x')});
    EXPECT_LE(error.size(), 1024u);
    ControlHeader header;
    std::memcpy(&header, error.data(), sizeof header);
    EXPECT_EQ(header.op, 0x8002);
    EXPECT_EQ(header.tag, 9u);
    EXPECT_EQ(header.error, EPERM);
}

// What it accepts has its texts inside the packet, one behind the other to its end.
TEST(ControlPacket, StaysInsideWhateverArrives) {
    std::mt19937_64 random(channel::test_seed());
    SCOPED_TRACE(testing::Message() << "seed " << channel::test_seed());
    int accepted = 0;
    for (int round = 0; round < 50'000; ++round) {
        ControlHandoff body;
        body.send = send_of(std::string(random() % 12, 'a'), random() % 12);
        body.name_length = static_cast<std::uint32_t>(random() % 12);
        body.target_length = static_cast<std::uint32_t>(random() % 12);
        const auto op = static_cast<ControlOp>(1 + random() % 14);
        Packet one = packet(op, body, std::string(random() % 40, 'b'));
        one.resize(std::min<std::size_t>(one.size(), 16 + random() % 100));
        if (random() % 2) one[random() % one.size()] ^= std::byte{1};
        auto request = parse_request(one, wanted_fds(op));
        if (!request) continue;
        ++accepted;
        const auto* start = reinterpret_cast<const char*>(one.data());
        const auto inside = [&](const char* data, std::size_t size) {
            EXPECT_TRUE(size == 0 || (data >= start && data + size <= start + one.size()));
        };
        for (std::string_view text : std::visit(test::TextsOf{}, request->body)) {
            inside(text.data(), text.size());
        }
    }
    EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace ipcfs::control
