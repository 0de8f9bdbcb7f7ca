// Awaitables for Boost.Asio, or for standalone Asio if IPCFS_STANDALONE_ASIO is defined. The only
// header of the client that needs more than the standard library; no other header includes it.
#pragma once

#if defined(IPCFS_STANDALONE_ASIO)
#include <asio/awaitable.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/redirect_error.hpp>
#include <asio/use_awaitable.hpp>
namespace ipcfs::detail {
namespace net = ::asio;
using NetError = std::error_code;
}  // namespace ipcfs::detail
#elif __has_include(<boost/asio/awaitable.hpp>)
#include <boost/asio/awaitable.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
namespace ipcfs::detail {
namespace net = ::boost::asio;
using NetError = ::boost::system::error_code;
}  // namespace ipcfs::detail
#else
#error "ipcfs/asio.hpp needs Boost.Asio, or IPCFS_STANDALONE_ASIO and Asio"
#endif

#include <cerrno>
#include <fcntl.h>
#include <utility>

#include <ipcfs/channel.hpp>
#include <ipcfs/notifier.hpp>

namespace ipcfs {

// Awaits messages of a channel, which must outlive the receiver. One coroutine at a time.
//
//     ipcfs::AsyncReceiver receiver(co_await boost::asio::this_coro::executor, channel);
//     while (auto message = co_await receiver.receive()) use(*message);
class AsyncReceiver {
public:
    AsyncReceiver(const detail::net::any_io_executor& executor, Channel& channel)
        : channel_(channel), descriptor_(executor) {}

    // Like Channel::receive() without a timeout. ECANCELED if the wait was cancelled.
    detail::net::awaitable<Expected<Message>> receive() {
        while (true) {
            auto message = channel_.try_receive();
            if (message || message.error().code != EAGAIN) co_return message;
            if (!descriptor_.is_open()) {
                auto fd = channel_.receive_fd();
                if (!fd) co_return Expected<Message>(std::move(fd).error());
                const int own = ::fcntl(*fd, F_DUPFD_CLOEXEC, 0);
                if (own < 0) co_return Expected<Message>(detail::last_error("receive"));
                descriptor_.assign(own);
            }
            detail::NetError error;
            co_await descriptor_.async_wait(
                detail::net::posix::descriptor_base::wait_read,
                detail::net::redirect_error(detail::net::use_awaitable, error));
            if (error) co_return Expected<Message>(Error{ECANCELED, "receive"});
        }
    }
    // Ends a wait with ECANCELED.
    void cancel() { descriptor_.cancel(); }

private:
    Channel& channel_;
    detail::net::posix::stream_descriptor descriptor_;
};

}  // namespace ipcfs
