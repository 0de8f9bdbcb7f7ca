// Ways to carry a small message from one process to another, all blocking: what ipcfs is compared
// with. A link is usable in forked children too. One thread at a time for each end.
#pragma once

#include <cstddef>
#include <memory>
#include <mqueue.h>
#include <span>
#include <string>

#include "servers.hpp"
#include <base/fd.hpp>

namespace ipcfs::bench {

class Link {
public:
    virtual ~Link() = default;
    virtual void send(std::span<const std::byte> message) = 0;
    // Waits for one message. How long it is; 0 at the end of the file.
    virtual std::size_t receive(std::span<std::byte> buffer) = 0;
};

// write(2) and read(2).
class FileLink final : public Link {
public:
    FileLink(Fd write_end, Fd read_end)
        : write_end_(std::move(write_end)), read_end_(std::move(read_end)) {}
    void send(std::span<const std::byte> message) override;
    std::size_t receive(std::span<std::byte> buffer) override;

private:
    Fd write_end_, read_end_;
};

class MqLink final : public Link {
public:
    explicit MqLink(mqd_t queue) : queue_(queue) {}
    ~MqLink() override { mq_close(queue_); }
    void send(std::span<const std::byte> message) override;
    std::size_t receive(std::span<std::byte> buffer) override;

private:
    mqd_t queue_;
};

Fd open_file(const std::string& path, int flags);
std::unique_ptr<Link> open_pipe();
std::unique_ptr<Link> open_seqpacket();
// Null where the kernel has none.
std::unique_ptr<Link> open_mq();
// Writes to the channel's `queue` and reads from its file `reading`.
std::unique_ptr<Link> open_channel(const Server& server, const std::string& channel,
                                   const std::string& reading);
std::unique_ptr<Link> open_null(const Server& server);

}  // namespace ipcfs::bench
