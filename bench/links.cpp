// Files, sockets, message queues.
#include "links.hpp"

#include <cerrno>
#include <cstdio>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "census.hpp"
#include "processes.hpp"

namespace ipcfs::bench {

void FileLink::send(std::span<const std::byte> message) {
    for (;;) {
        const ssize_t done = write(write_end_.get(), message.data(), message.size());
        if (done == static_cast<ssize_t>(message.size())) return;
        // EAGAIN: a channel was full for longer than its timeout.
        if (done < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        must(done, "write");
        throw std::runtime_error("a short write");
    }
}

std::size_t FileLink::receive(std::span<std::byte> buffer) {
    for (;;) {
        const ssize_t got = read(read_end_.get(), buffer.data(), buffer.size());
        if (got < 0 && errno == EINTR) continue;
        return static_cast<std::size_t>(must(got, "read"));
    }
}

void MqLink::send(std::span<const std::byte> message) {
    const auto* data = reinterpret_cast<const char*>(message.data());
    while (mq_send(queue_, data, message.size(), 0) != 0) {
        if (errno != EINTR) must(-1, "mq_send");
    }
}

std::size_t MqLink::receive(std::span<std::byte> buffer) {
    for (;;) {
        auto* data = reinterpret_cast<char*>(buffer.data());
        const ssize_t got = mq_receive(queue_, data, buffer.size(), nullptr);
        if (got < 0 && errno == EINTR) continue;
        return static_cast<std::size_t>(must(got, "mq_receive"));
    }
}

Fd open_file(const std::string& path, int flags) {
    return Fd(static_cast<int>(must(open(path.c_str(), flags | O_CLOEXEC), "open " + path)));
}

std::unique_ptr<Link> open_pipe() {
    int ends[2];
    must(pipe2(ends, O_CLOEXEC), "pipe");
    return std::make_unique<FileLink>(Fd(ends[1]), Fd(ends[0]));
}

std::unique_ptr<Link> open_seqpacket() {
    int ends[2];
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), "socketpair");
    return std::make_unique<FileLink>(Fd(ends[1]), Fd(ends[0]));
}

std::unique_ptr<Link> open_mq() {
    static unsigned made = 0;
    char name[64];
    std::snprintf(name, sizeof name, "/ipcfs-bench-%d-%u", getpid(), made++);
    mq_attr attributes{};
    attributes.mq_maxmsg = 10;
    attributes.mq_msgsize = kMessageSize;
    const mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, &attributes);
    if (queue < 0) return nullptr;
    mq_unlink(name);  // the descriptor keeps it
    return std::make_unique<MqLink>(queue);
}

std::unique_ptr<Link> open_channel(const Server& server, const std::string& channel,
                                   const std::string& reading) {
    return std::make_unique<FileLink>(open_file(server.at(channel + "/queue"), O_WRONLY),
                                      open_file(server.at(channel + "/" + reading), O_RDONLY));
}

std::unique_ptr<Link> open_null(const Server& server) {
    return std::make_unique<FileLink>(open_file(server.at("file"), O_WRONLY),
                                      open_file(server.at("file"), O_RDONLY));
}

}  // namespace ipcfs::bench
