// Receives the frames of `producer` without copying, reads every byte, and reports the throughput.
//
//     consumer CHANNEL
//
// Ends with the producer's last message; the exit code is 1 if a frame was missing or corrupt.
// Build: g++ -std=c++20 -O2 consumer.cpp $(pkg-config --cflags --libs ipcfs)
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include <ipcfs/ipcfs.hpp>

namespace {

struct Picture {
    std::uint64_t number;
    std::uint64_t bytes;
};

int fail(const ipcfs::Error& error) {
    std::fprintf(stderr, "consumer: %s\n", error.message().c_str());
    return 1;
}

// Sums the bytes, eight at a time, then the rest.
std::uint64_t sum(std::span<const std::byte> bytes) {
    std::uint64_t words = 0;
    std::uint64_t rest = 0;
    while (bytes.size() >= sizeof words) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data(), sizeof word);
        words += word;
        bytes = bytes.subspan(sizeof word);
    }
    for (const std::byte each : bytes) rest += static_cast<std::uint64_t>(each);
    return words + rest;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 2) return std::fputs("usage: consumer CHANNEL\n", stderr), 2;
    ipcfs::ChannelOptions options;
    options.create = true;
    auto channel = ipcfs::Channel::open(argv[1], options);
    if (!channel) return fail(channel.error());

    std::uint64_t frames = 0;
    std::uint64_t bad = 0;
    double all = 0;
    auto start = std::chrono::steady_clock::now();
    while (true) {
        auto message = channel->receive();
        if (!message) return fail(message.error());
        if (message->type() == ipcfs::FrameType::kEvent) break;
        if (frames == 0) start = std::chrono::steady_clock::now();

        // The producer's own pages, mapped read-only: nothing was copied.
        auto frame = message->map();
        if (!frame) return fail(frame.error());
        Picture picture{};
        if (frame->size() >= sizeof picture) std::memcpy(&picture, frame->data(), sizeof picture);
        const std::uint64_t byte = frames & 0xff;
        const auto drawn = frame->subspan(std::min(sizeof picture, frame->size()));
        const std::uint64_t expected =
            drawn.size() / 8 * (byte * 0x0101010101010101U) + drawn.size() % 8 * byte;
        if (picture.number != frames || picture.bytes != frame->size() || sum(drawn) != expected)
            ++bad;
        ++frames;
        all += static_cast<double>(frame->size());
        // `message` is destroyed here, which frees its chunk.
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("received %llu frames, %llu of them bad: %.0f frames/s, %.2f GB/s\n",
                static_cast<unsigned long long>(frames), static_cast<unsigned long long>(bad),
                static_cast<double>(frames) / took.count(), all / took.count() / 1e9);
    return bad == 0 ? 0 : 1;
}
