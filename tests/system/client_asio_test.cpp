// Awaitables of the client header, with Boost.Asio, on a real mount.
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>

#include "daemon_fixture.hpp"
#include <ipcfs/asio.hpp>

namespace ipcfs::test {
namespace {

class ClientAsio : public MountedTest {};

TEST_F(ClientAsio, AwaitsMessagesUntilTheChannelIsGone) {
    make_channel("jobs");
    auto channel = ipcfs::Channel::open(at("jobs"));
    ASSERT_TRUE(channel);
    boost::asio::io_context context;
    std::vector<std::string> got;
    int error = 0;
    boost::asio::co_spawn(
        context,
        [&]() -> boost::asio::awaitable<void> {
            AsyncReceiver receiver(context.get_executor(), *channel);
            while (true) {
                auto message = co_await receiver.receive();
                if (!message) {
                    error = message.error().code;
                    break;
                }
                got.emplace_back(message->text());
            }
        },
        boost::asio::detached);
    EXPECT_TRUE(channel->send("one"));
    ASSERT_TRUE(wait_until([&] {
        context.poll();
        return got.size() == 1;
    }));
    EXPECT_TRUE(channel->send("two"));
    EXPECT_TRUE(channel->send("three"));
    ASSERT_TRUE(wait_until([&] {
        context.poll();
        return got.size() == 3;
    }));
    ASSERT_EQ(::rmdir(at("jobs").c_str()), 0);
    ASSERT_TRUE(wait_until([&] {
        context.poll();
        return error != 0;
    }));
    EXPECT_EQ(error, EPIPE);
}

}  // namespace
}  // namespace ipcfs::test
