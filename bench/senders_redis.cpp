// Redis: the protocol RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/), as far as
// XADD needs it.
#include <stdexcept>

#include "senders.hpp"

namespace ipcfs::bench {
namespace {

std::string command(std::span<const std::string_view> words) {
    std::string text = "*" + std::to_string(words.size()) + "\r\n";
    for (const auto& word : words) {
        text += "$" + std::to_string(word.size()) + "\r\n";
        text += word;
        text += "\r\n";
    }
    return text;
}

// One reply, a simple one or a string.
std::string reply(Stream& from) {
    std::string line = from.line();
    if (line.empty() || line[0] == '-') throw std::runtime_error("redis: " + line);
    if (line[0] != '$') return line;
    const std::string text = from.bytes(std::stoul(line.substr(1)) + 2);
    return text.substr(0, text.size() - 2);
}

class RedisSender final : public SplitSender {
public:
    explicit RedisSender(Fd fd) : stream_(std::move(fd)) {}
    void submit(std::span<const std::byte> body) override {
        const std::string_view words[] = {
            "XADD", "jobs", "*", "d", {reinterpret_cast<const char*>(body.data()), body.size()}};
        stream_.send(command(words));
    }
    void await() override { reply(stream_); }
    int fd() const override { return stream_.fd(); }

private:
    Stream stream_;
};

}  // namespace

Redis::Redis(const Run& run, const std::string& fsync)
    : directory_(make_directory(run, "redis")), fsync_(fsync), socket_(directory_ + "/socket") {
    start();
}

void Redis::start() {
    daemon_ = std::make_unique<Daemon>(
        directory_,
        std::vector<std::string>{"redis-server", "--port", "0", "--unixsocket", socket_, "--dir",
                                 directory_, "--appendonly", "yes", "--appendfsync", fsync_,
                                 "--save", "", "--auto-aof-rewrite-percentage", "0", "--daemonize",
                                 "no", "--loglevel", "warning"},
        [&] {
            Stream stream(connect_unix(socket_));
            if (stream.fd() < 0) return false;
            stream.send("PING\r\n");
            return stream.line() == "+PONG";  // or that it is loading
        });
}

double Redis::restart(unsigned count) {
    daemon_.reset();
    const auto from = now_ns();
    start();
    const double took = static_cast<double>(now_ns() - from);
    Stream stream(connect_unix(socket_));
    stream.send("XLEN jobs\r\n");
    if (const auto has = reply(stream); has != ":" + std::to_string(count)) {
        throw std::runtime_error("redis has " + has);
    }
    return took;
}

void Redis::fill(unsigned count, std::span<const std::byte> body) const {
    constexpr unsigned kPipelined = 100;
    RedisSender sender(connect_unix(socket_));
    for (unsigned done = 0; done < count;) {
        const unsigned part = std::min(kPipelined, count - done);
        for (unsigned i = 0; i < part; ++i) sender.submit(body);
        for (unsigned i = 0; i < part; ++i) sender.await();
        done += part;
    }
}

std::unique_ptr<Sender> Redis::sender() const {
    Fd fd = connect_unix(socket_);
    if (!fd) throw std::runtime_error("redis-server does not listen");
    return std::make_unique<RedisSender>(std::move(fd));
}

void Redis::empty() const {
    Stream stream(connect_unix(socket_));
    stream.send("DEL jobs\r\n");
    reply(stream);
}

}  // namespace ipcfs::bench
