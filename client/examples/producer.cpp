// Sends video frames without copying: borrows memory, draws a picture into it, and sends it.
//
//     producer CHANNEL [FRAMES] [BYTES]     defaults: 300 frames of 1920x1080 in 4 bytes a pixel
//
// Creates the channel if needed. With `echo payloads pooled > CHANNEL/ctl`, the memory comes from a
// pool and is reused; otherwise each frame is sealed, so that nobody can change it. Ends with an empty
// message of type event. Build: g++ -std=c++20 -O2 producer.cpp $(pkg-config --cflags --libs ipcfs)
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <ipcfs/ipcfs.hpp>

int fail(const ipcfs::Error& error) {
    return std::fprintf(stderr, "producer: %s\n", error.message().c_str()), 1;
}

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: producer CHANNEL [FRAMES] [BYTES]\n", stderr), 2;
    const unsigned long frames = argc > 2 ? std::strtoul(argv[2], nullptr, 0) : 300;
    const std::size_t bytes = argc > 3 ? std::strtoul(argv[3], nullptr, 0) : 1920 * 1080 * 4;

    ipcfs::ChannelOptions options;
    options.create = true;
    auto channel = ipcfs::Channel::open(argv[1], options);
    if (!channel) return fail(channel.error());

    bool pooled = false;
    const auto start = std::chrono::steady_clock::now();
    for (unsigned long number = 1; number <= frames; ++number) {
        // Waits for a chunk if the consumer still holds all of them.
        auto frame = channel->loan(bytes);
        if (!frame) return fail(frame.error());
        pooled = frame->pooled();
        std::memset(frame->data(), static_cast<int>(number & 0xff), frame->size());
        ipcfs::SendOptions header;
        header.message_id = number;
        if (auto sent = channel->send(std::move(*frame), header); !sent) return fail(sent.error());
    }
    ipcfs::SendOptions end;
    end.type = ipcfs::FrameType::kEvent;
    if (auto sent = channel->send("", end); !sent) return fail(sent.error());

    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const double rate = static_cast<double>(frames) / took.count();
    std::printf("sent %lu frames of %zu bytes (%s): %.0f frames/s, %.2f GB/s\n", frames, bytes,
                pooled ? "pooled" : "sealed", rate, rate * static_cast<double>(bytes) / 1e9);
    return 0;
}
