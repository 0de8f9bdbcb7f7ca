// D-Bus, as far as a signal and its match rule need it: https://dbus.freedesktop.org/doc/
// dbus-specification.html ("Message Protocol", "Authentication Protocol").
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

#include "broadcast.hpp"
#include "census.hpp"

namespace ipcfs::bench {
namespace {

enum : std::uint8_t { kMethodCall = 1, kMethodReturn = 2, kError = 3, kSignal = 4 };
enum : std::uint8_t { kPath = 1, kInterface = 2, kMember = 3, kDestination = 6, kSignature = 8 };
constexpr std::uint8_t kNoReply = 1;
constexpr std::size_t kFixed = 16;  // of a header: up to the length of its fields, included
constexpr std::size_t kMostMessage = 4096;

// Marshals what we send, in the byte order of this machine, which is little-endian.
class Wire {
public:
    void align(std::size_t to) { bytes.resize((bytes.size() + to - 1) / to * to, 0); }
    void byte(std::uint8_t value) { bytes.push_back(static_cast<char>(value)); }
    void number(std::uint32_t value) {
        align(4);
        bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    void text(std::string_view value) {
        number(static_cast<std::uint32_t>(value.size()));
        bytes.append(value);
        byte(0);
    }
    void field(std::uint8_t code, char type, std::string_view value) {
        align(8);
        byte(code);
        byte(1);
        byte(static_cast<std::uint8_t>(type));
        byte(0);
        if (type != 'g') return text(value);
        byte(static_cast<std::uint8_t>(value.size()));
        bytes.append(value);
        byte(0);
    }
    std::string bytes;
};

struct Field {
    std::uint8_t code;
    char type;
    std::string_view value;
};

std::string message(std::uint8_t type, std::uint8_t flags, std::uint32_t serial,
                    std::span<const Field> fields, std::string_view body) {
    Wire wire;
    for (const std::uint8_t value : {std::uint8_t{'l'}, type, flags, std::uint8_t{1}}) {
        wire.byte(value);
    }
    wire.number(static_cast<std::uint32_t>(body.size()));
    wire.number(serial);
    wire.number(0);
    for (const Field& field : fields) wire.field(field.code, field.type, field.value);
    const auto length = static_cast<std::uint32_t>(wire.bytes.size() - kFixed);
    std::memcpy(wire.bytes.data() + kFixed - sizeof length, &length, sizeof length);
    wire.align(8);
    wire.bytes.append(body);
    return wire.bytes;
}

constexpr std::string_view kBus = "org.freedesktop.DBus";

// A connection that has said hello. Messages are taken out of what was received one by one.
class Connection {
public:
    explicit Connection(Fd fd) : fd_(std::move(fd)) {
        if (!fd_) throw std::runtime_error("dbus-daemon does not listen");
        std::string uid;
        for (const char digit : std::to_string(geteuid())) uid += "3" + std::string(1, digit);
        send(std::string(1, '\0') + "AUTH EXTERNAL " + uid + "\r\n");
        std::array<char, 256> answer;
        const auto size = must(recv(fd_.get(), answer.data(), answer.size(), 0), "authenticate");
        if (std::string_view(answer.data(), static_cast<std::size_t>(size)).rfind("OK ", 0) != 0) {
            throw std::runtime_error("dbus-daemon does not know us");
        }
        send("BEGIN\r\n");
        call("Hello", "", "");
    }
    int fd() const { return fd_.get(); }

    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            const auto sent = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (sent < 0 && errno == EINTR) continue;
            bytes.remove_prefix(static_cast<std::size_t>(must(sent, "send to the bus")));
        }
    }
    // Calls a method of the bus itself and waits for its answer.
    void call(std::string_view method, std::string_view signature, std::string_view argument) {
        Wire body;
        if (!signature.empty()) body.text(argument);
        const Field fields[] = {{kPath, 'o', "/org/freedesktop/DBus"},
                                {kInterface, 's', kBus},
                                {kMember, 's', method},
                                {kDestination, 's', kBus},
                                {kSignature, 'g', signature}};
        const std::size_t count = std::size(fields) - (signature.empty() ? 1 : 0);
        send(message(kMethodCall, 0, ++serial_, std::span(fields).first(count), body.bytes));
        for (bool answered = false; !answered;) {
            fill();
            take([&](std::uint8_t type, std::span<const char>) {
                if (type == kError) throw std::runtime_error("the bus refuses");
                answered = answered || type == kMethodReturn;
            });
        }
    }
    void signal(std::span<const std::byte> body) {
        Wire wire;
        wire.number(static_cast<std::uint32_t>(body.size()));
        wire.bytes.append(reinterpret_cast<const char*>(body.data()), body.size());
        const Field fields[] = {{kPath, 'o', "/bench"},
                                {kInterface, 's', "ipcfs.Bench"},
                                {kMember, 's', "Message"},
                                {kSignature, 'g', "ay"}};
        send(message(kSignal, kNoReply, ++serial_, fields, wire.bytes));
    }
    // One receiving call; false when nothing is there.
    bool fill() {
        for (;;) {
            const auto got = recv(fd_.get(), buffer_.data() + have_, buffer_.size() - have_, 0);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0 && errno == EAGAIN) return false;
            if (must(got, "receive from the bus") == 0) {
                throw std::runtime_error("the bus closed a connection");
            }
            have_ += static_cast<std::size_t>(got);
            return true;
        }
    }
    // Calls `use` with the type and the body of each whole message.
    template <class F>
    void take(F&& use) {
        std::size_t at = 0;
        while (have_ - at >= kFixed) {
            std::uint32_t body = 0, fields = 0;
            std::memcpy(&body, buffer_.data() + at + 4, sizeof body);
            std::memcpy(&fields, buffer_.data() + at + 12, sizeof fields);
            const std::size_t header = (kFixed + fields + 7) / 8 * 8;
            if (header + body > kMostMessage) throw std::runtime_error("what the bus says is long");
            if (have_ - at < header + body) break;
            use(static_cast<std::uint8_t>(buffer_[at + 1]),
                std::span<const char>(buffer_.data() + at + header, body));
            at += header + body;
        }
        have_ -= at;
        std::memmove(buffer_.data(), buffer_.data() + at, have_);
    }

private:
    Fd fd_;
    std::uint32_t serial_ = 0;
    std::vector<char> buffer_ = std::vector<char>(4 * kMostMessage);
    std::size_t have_ = 0;
};

class DBusSubscription final : public Subscription {
public:
    DBusSubscription(Fd fd, bool waits) : connection_(std::move(fd)) {
        connection_.call("AddMatch", "s", "type='signal',interface='ipcfs.Bench'");
        if (!waits) {
            must(fcntl(connection_.fd(), F_SETFL, O_RDWR | O_NONBLOCK), "O_NONBLOCK");
        }
    }
    int fd() const override { return connection_.fd(); }
    unsigned receive(std::uint64_t& wrong) override {
        unsigned count = 0;
        if (!connection_.fill()) return 0;
        connection_.take([&](std::uint8_t type, std::span<const char> body) {
            if (type != kSignal || body.size() != sizeof(std::uint32_t) + kMessageSize) return;
            Numbered message;
            std::memcpy(static_cast<void*>(&message), body.data() + sizeof(std::uint32_t),
                        sizeof message);
            check(message.number, wrong);
            ++count;
        });
        return count;
    }

private:
    Connection connection_;
};

class DBusPublisher final : public Sender {
public:
    explicit DBusPublisher(Fd fd) : connection_(std::move(fd)) {}
    void send(std::span<const std::byte> body) override { connection_.signal(body); }

private:
    Connection connection_;
};

}  // namespace

DBus::DBus(const Run& run) {
    const std::string directory = make_directory(run, "dbus");
    socket_ = directory + "/socket";
    const std::string config = directory + "/config";
    // The limits are those of a session bus: none that matters here.
    std::string text =
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" "
        "\"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n"
        "<type>session</type><listen>unix:path=" +
        socket_ +
        "</listen><auth>EXTERNAL</auth>\n"
        "<policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>"
        "<allow eavesdrop=\"true\"/><allow own=\"*\"/></policy>\n";
    for (const char* limit :
         {"max_completed_connections", "max_incomplete_connections", "max_connections_per_user",
          "max_match_rules_per_connection", "max_incoming_bytes", "max_outgoing_bytes"}) {
        text += "<limit name=\"" + std::string(limit) + "\">1000000000</limit>\n";
    }
    write_text(config, text + "</busconfig>\n");
    daemon_ =
        std::make_unique<Daemon>(directory,
                                 std::vector<std::string>{"dbus-daemon", "--config-file=" + config,
                                                          "--nofork", "--nopidfile"},
                                 [&] { return static_cast<bool>(connect_unix(socket_)); });
}

std::unique_ptr<Subscription> DBus::subscribe(bool waits) const {
    return std::make_unique<DBusSubscription>(connect_unix(socket_), waits);
}

std::unique_ptr<Sender> DBus::publisher() const {
    return std::make_unique<DBusPublisher>(connect_unix(socket_));
}

}  // namespace ipcfs::bench
