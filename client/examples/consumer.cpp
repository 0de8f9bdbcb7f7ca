// Receives the frames of `producer` without copying, reads every byte, and reports the throughput.
//
//     consumer CHANNEL
//
// Ends with the producer's last message; the exit code is 1 if a frame was missing or corrupt.
// Build: g++ -std=c++20 -O2 consumer.cpp $(pkg-config --cflags --libs ipcfs)
#include <chrono>
#include <cstdio>
#include <cstring>

#include <ipcfs/ipcfs.hpp>

int fail(const ipcfs::Error& error) {
    return std::fprintf(stderr, "consumer: %s\n", error.message().c_str()), 1;
}

// Whether every byte is `value`.
bool is_all(std::span<const std::byte> bytes, unsigned long value) {
    return !bytes.empty() && bytes[0] == static_cast<std::byte>(value & 0xff) &&
           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: consumer CHANNEL\n", stderr), 2;
    ipcfs::ChannelOptions options;
    options.create = true;
    auto channel = ipcfs::Channel::open(argv[1], options);
    if (!channel) return fail(channel.error());

    unsigned long frames = 0;
    unsigned long bad = 0;
    double bytes = 0;
    auto start = std::chrono::steady_clock::now();
    while (true) {
        auto message = channel->receive();
        if (!message) return fail(message.error());
        if (message->type() == ipcfs::FrameType::kEvent) break;
        if (frames == 0) start = std::chrono::steady_clock::now();
        // The producer's own pages, mapped read-only: nothing was copied.
        auto frame = message->map();
        if (!frame) return fail(frame.error());
        ++frames;
        if (message->header().message_id != frames || !is_all(*frame, frames)) ++bad;
        bytes += static_cast<double>(frame->size());
        // `message` is destroyed here, which frees its chunk.
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("received %lu frames, %lu of them bad: %.0f frames/s, %.2f GB/s\n", frames, bad,
                static_cast<double>(frames) / took.count(), bytes / took.count() / 1e9);
    return bad == 0 ? 0 : 1;
}
