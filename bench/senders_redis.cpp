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
    const std::string line = from.line();
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

Redis::Redis(const Run& run, const std::string& fsync) {
    const std::string directory = make_directory(run, "redis");
    socket_ = directory + "/socket";
    daemon_ = std::make_unique<Daemon>(
        directory,
        std::vector<std::string>{"redis-server", "--port", "0", "--unixsocket", socket_, "--dir",
                                 directory, "--appendonly", "yes", "--appendfsync", fsync, "--save",
                                 "", "--auto-aof-rewrite-percentage", "0", "--daemonize", "no",
                                 "--loglevel", "warning"},
        [&] {
            if (access(socket_.c_str(), F_OK) != 0) return false;
            Stream stream(connect_unix(socket_));
            if (stream.fd() < 0) return false;
            stream.send("PING\r\n");
            return stream.line() == "+PONG";
        });
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
