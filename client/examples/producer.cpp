// Sends video frames without copying: borrows memory, draws a picture into it, and sends it.
//
//     producer CHANNEL [FRAMES] [BYTES]     defaults: 300 frames of 1920x1080 in 4 bytes a pixel
//
// Creates the channel if needed. With `echo payloads pooled > CHANNEL/ctl`, the memory comes from a
// pool and is reused; otherwise each frame is sealed, so that nobody can change it. Ends with an
// empty message of type event. Build: g++ -std=c++20 -O2 producer.cpp $(pkg-config --cflags --libs
// ipcfs)
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <ipcfs/ipcfs.hpp>

namespace {

// The header at the start of each frame.
struct Picture {
    std::uint64_t number;
    std::uint64_t bytes;
};

int fail(const ipcfs::Error& error) {
    std::fprintf(stderr, "producer: %s\n", error.message().c_str());
    return 1;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: producer CHANNEL [FRAMES] [BYTES]\n", stderr), 2;
    const std::uint64_t frames = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : 300;
    const std::size_t bytes = argc > 3 ? std::strtoull(argv[3], nullptr, 0) : 1920 * 1080 * 4;
    if (bytes < sizeof(Picture))
        return std::fputs("producer: BYTES is too small for a frame\n", stderr), 2;

    ipcfs::ChannelOptions options;
    options.create = true;
    auto channel = ipcfs::Channel::open(argv[1], options);
    if (!channel) return fail(channel.error());

    bool pooled = false;
    const auto start = std::chrono::steady_clock::now();
    for (std::uint64_t number = 0; number < frames; ++number) {
        // Waits for a chunk if the consumer still holds all of them.
        auto frame = channel->loan(bytes);
        if (!frame) return fail(frame.error());
        pooled = frame->pooled();
        std::memset(frame->data(), static_cast<int>(number & 0xff), frame->size());
        const Picture picture{number, bytes};
        std::memcpy(frame->data(), &picture, sizeof picture);
        if (auto sent = channel->send(std::move(*frame)); !sent) return fail(sent.error());
    }
    ipcfs::SendOptions end;
    end.type = ipcfs::FrameType::kEvent;
    if (auto sent = channel->send("", end); !sent) return fail(sent.error());

    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    const double all = static_cast<double>(frames) * static_cast<double>(bytes);
    std::printf("sent %llu frames of %zu bytes (%s): %.0f frames/s, %.2f GB/s\n",
                static_cast<unsigned long long>(frames), bytes, pooled ? "pooled" : "sealed",
                static_cast<double>(frames) / took.count(), all / took.count() / 1e9);
    return 0;
}
