// NATS: its client protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol) and the
// JetStream API, which is messages to $JS.API subjects.
#include <array>
#include <atomic>
#include <filesystem>
#include <stdexcept>

#include <nlohmann/json.hpp>

#include "senders.hpp"

namespace ipcfs::bench {
namespace {

class NatsSender final : public SplitSender {
public:
    explicit NatsSender(Fd fd) : stream_(std::move(fd)) {
        static std::atomic<unsigned> number{0};
        inbox_ = "_INBOX.bench" + std::to_string(number++);
        stream_.line();  // INFO
        stream_.send("CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB " + inbox_ +
                     " 1\r\nPING\r\n");
        if (const auto line = next_line(); line != "PONG")
            throw std::runtime_error("nats: " + line);
    }
    void submit(std::span<const std::byte> body) override {
        publish("jobs", {reinterpret_cast<const char*>(body.data()), body.size()});
    }
    void await() override { answer(); }
    int fd() const override { return stream_.fd(); }

    void publish(const std::string& subject, std::string_view body) {
        std::string text =
            "PUB " + subject + " " + inbox_ + " " + std::to_string(body.size()) + "\r\n";
        text += body;
        text += "\r\n";
        stream_.send(text);
    }
    // What came to the reply subject: JSON.
    std::string answer() {
        const std::string line = next_line();
        if (line.rfind("MSG ", 0) != 0) throw std::runtime_error("nats: " + line);
        const std::size_t size = std::stoul(line.substr(line.rfind(' ') + 1));
        std::string text = stream_.bytes(size + 2);
        if (text.find("\"error\"") != std::string::npos) throw std::runtime_error("nats: " + text);
        return text;
    }

private:
    std::string next_line() {
        std::string line = stream_.line();
        for (; line == "PING"; line = stream_.line()) stream_.send("PONG\r\n");
        return line;
    }
    Stream stream_;
    std::string inbox_;
};

std::unique_ptr<NatsSender> connect(unsigned port) {
    Fd fd = connect_loopback(port);
    if (!fd) throw std::runtime_error("nats-server does not listen");
    return std::make_unique<NatsSender>(std::move(fd));
}

}  // namespace

Nats::Nats(const Run& run) {
    const std::string directory = make_directory(run, "nats");
    const std::string config = directory + "/config";
    write_text(config,
               "listen: \"127.0.0.1:-1\"\n"  // a free port, told in the file
               "ports_file_dir: \"" +
                   directory +
                   "\"\n"
                   "jetstream { store_dir: \"" +
                   directory + "/data\" }\n");
    daemon_ = std::make_unique<Daemon>(
        directory, std::vector<std::string>{"nats-server", "--config", config}, [&] {
            for (const auto& file : std::filesystem::directory_iterator(directory)) {
                if (file.path().extension() != ".ports") continue;
                const auto ports = nlohmann::json::parse(slurp(file.path()), nullptr, false);
                if (ports.is_discarded() || !ports.contains("nats")) return false;
                const std::string url = ports["nats"].at(0).get<std::string>();
                port_ = static_cast<unsigned>(std::stoul(url.substr(url.rfind(':') + 1)));
            }
            return port_ != 0 && static_cast<bool>(connect_loopback(port_));
        });
    auto client = connect(port_);
    client->publish(
        "$JS.API.STREAM.CREATE.jobs",
        R"({"name":"jobs","subjects":["jobs"],"storage":"file","retention":"limits",)"
        R"("num_replicas":1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"discard":"old"})");
    client->answer();
}

std::unique_ptr<Sender> Nats::sender() const {
    return connect(port_);
}

void Nats::empty() const {
    auto client = connect(port_);
    client->publish("$JS.API.STREAM.PURGE.jobs", "");
    client->answer();
}

}  // namespace ipcfs::bench
