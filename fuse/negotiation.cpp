// FUSE_INIT: what the kernel offers, what of it the session takes, and what it cannot do then. On the
// thread that starts the session, before any request is served.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utility>

#include <fuse/buffer.hpp>
#include <fuse/probe.hpp>
#include <fuse/session.hpp>
#include <fuse/uapi.hpp>

namespace ipcfs::fuse {

namespace {

constexpr std::size_t kRingMemory = 64ULL << 30;
constexpr int kInitPatience = 5000;  // ms; the kernel sends INIT at mount

struct RingShape {
    unsigned queues, depth;
};
RingShape ring_shape(const SessionConfig& config) {
    const unsigned queues = possible_cpus();
    const std::size_t most = kRingMemory / queues / (config.max_write + 2 * kHeaderRoom);
    return {queues, static_cast<unsigned>(std::clamp<std::size_t>(config.ring_depth, 2,
                                                                  std::max<std::size_t>(most, 2)))};
}

}  // namespace

std::size_t Session::ring_bytes(const SessionConfig& config) {
    if (config.transport == Transport::kClassic) return 0;
    const RingShape shape = ring_shape(config);
    return shape.queues * shape.depth * ring_stride(config.max_write);
}

// The reply is fuse_init_out as raw bytes: libfuse 3.14 cannot express all that the kernel can do.
ssize_t Session::write_init_reply(iovec* iov, int count) noexcept {
    const auto header = read_struct<fuse_out_header>(iov[0].iov_base);
    if (count == 2 && header.error == 0 && iov[1].iov_len >= sizeof(fuse_init_out)) {
        fuse_init_out out = read_struct<fuse_init_out>(iov[1].iov_base);
        std::uint64_t extra = config_.extra_init_flags & report_.init_offered;
        if (!rings_.empty()) extra |= kInitOverIoUring;
        if (report_.init_offered & kInitExt) extra |= kInitExt;
        if (config_.passthrough && (report_.init_offered & kInitPassthrough)) {
            extra |= kInitPassthrough;
            const std::uint32_t depth = 1;  // memory files lie on nothing
            std::memcpy(reinterpret_cast<std::byte*>(&out) + kInitStackDepthAt, &depth,
                        sizeof depth);
        }
        const std::uint64_t flags = (out.flags | std::uint64_t{out.flags2} << 32 | extra) &
                                    ~(rings_.empty() ? kInitOverIoUring : std::uint64_t{0});
        out.flags = static_cast<std::uint32_t>(flags);
        out.flags2 = static_cast<std::uint32_t>(flags >> 32);
        report_.init_accepted = flags;
        std::memcpy(iov[1].iov_base, &out, sizeof out);
        init_answered_ = true;
    }
    report_.why_not_survives = cannot_survive();
    report_.survives = report_.why_not_survives.empty();
    if (config_.inheritance) config_.inheritance->set_survivable(report_.survives);
    if (!config_.inheritance || !init_answered_) return ::writev(mount_.device().get(), iov, count);

    // What the kernel was told once holds, whatever this daemon would say.
    const std::size_t whole = iov[0].iov_len + iov[1].iov_len;
    if (!config_.inheritance->init_reply()) {
        InitReply made{};
        std::memcpy(&made.header, iov[0].iov_base, sizeof made.header);
        std::memcpy(&made.out, iov[1].iov_base, std::min(sizeof made.out, iov[1].iov_len));
        config_.inheritance->keep_init_reply(made);
    }
    const InitReply& reply = *config_.inheritance->init_reply();
    report_.init_accepted = reply.out.flags | std::uint64_t{reply.out.flags2} << 32;
    if (!replaying_) {
        // ENOENT: a predecessor sent it, and had no time to note that.
        if (::write(mount_.device().get(), &reply, reply.header.len) < 0 && errno != ENOENT)
            return -1;
        config_.inheritance->init_sent();
    }
    return static_cast<ssize_t>(whole);
}

std::string Session::cannot_survive() const {
    if (!config_.inheritance) return "nobody holds the mount for it";
    if (!report_.custom_io) return "this libfuse was built without custom io";
    if (!(report_.init_offered & kInitHasResend) || report_.proto_minor < kMinorWithEpoch)
        return "the kernel is older than Linux 6.16";
    if (!rings_.empty() && !config_.inheritance->rings()) return "the rings' memory is its own";
    return {};
}

Result<void> Session::answer_init() {
    pollfd device{mount_.device().get(), POLLIN, 0};
    Inheritance* const inherited = config_.inheritance;
    Buffer own(inherited ? 4096 : config_.max_write + kHeaderRoom);
    if (!own) return errno_fault("map a request buffer");
    std::byte* const buffer =
        inherited ? inherited->init_request() : static_cast<std::byte*>(own.data());
    const std::size_t room = inherited ? Inheritance::kInitRoom : own.size();
    replaying_ = inherited && inherited->init_was_sent();
    if (inherited) {
        // The transport that the kernel was told of.
        if (const InitReply* reply = inherited->init_reply()) {
            must_ring_ = (reply->out.flags2 & (kInitOverIoUring >> 32)) != 0;
            config_.transport = must_ring_ ? Transport::kUring : Transport::kClassic;
        }
    }
    // A predecessor may have read it already.
    bool there = inherited && read_struct<fuse_in_header>(buffer).opcode == FUSE_INIT;
    for (;;) {
        ssize_t got = 0;
        if (std::exchange(there, false)) {
            got = static_cast<ssize_t>(read_struct<fuse_in_header>(buffer).len);
        } else {
            const int ready = ::poll(&device, 1, kInitPatience);
            if (ready == 0) return Fault{ETIMEDOUT, "wait for the kernel's FUSE_INIT"};
            got = ready < 0 ? -1 : ::read(device.fd, buffer, room);
        }
        if (got < 0 && (errno == EINTR || errno == ENOENT || errno == EAGAIN)) continue;
        if (got < 0) return errno_fault("read FUSE_INIT");
        if (static_cast<std::size_t>(got) < sizeof(fuse_in_header) + 16)
            return Fault{EPROTO, "short FUSE_INIT"};
        const auto in = read_struct<fuse_in_header>(buffer);
        if (in.opcode != FUSE_INIT) return Fault{EPROTO, "request before FUSE_INIT"};
        fuse_init_in init{};
        std::memcpy(&init, buffer + sizeof in,
                    std::min(sizeof init, static_cast<std::size_t>(got) - sizeof in));
        report_.proto_major = init.major;
        report_.proto_minor = init.minor;
        report_.init_offered = init.flags;
        if (init.flags & kInitExt) report_.init_offered |= std::uint64_t{init.flags2} << 32;
        if (config_.transport == Transport::kUring && rings_.empty()) {
            report_.why_not_uring = prepare_rings(report_.init_offered);
            if (!report_.why_not_uring.empty()) rings_.clear();
            if (must_ring_ && rings_.empty())
                return Fault{EPROTO, "take the rings over: " + report_.why_not_uring};
        }

        init_counts_.count(in.opcode);
        init_unique_ = in.unique;
        fuse_buf request{};
        request.mem = buffer;
        request.size = static_cast<std::size_t>(got);
        ::fuse_session_process_buf(session_, &request);
        init_unique_ = 0;
        if (init_answered_ || !report_.custom_io) break;
        if (::fuse_session_exited(session_)) return Fault{EPROTO, "FUSE_INIT was refused"};
    }
    return {};
}

std::string Session::prepare_rings(std::uint64_t offered) {
    if (!report_.custom_io) return "this libfuse was built without custom io";
    if (!(offered & kInitOverIoUring)) {
        const auto enabled = probe_kernel().uring_enabled;
        if (!enabled) return "the kernel has no FUSE over io_uring (Linux 6.14 has)";
        return *enabled ? "the kernel does not offer it"
                        : "/sys/module/fuse/parameters/enable_uring is N";
    }
    const auto [queues, depth] = ring_shape(config_);
    std::byte* memory = nullptr;
    if (config_.inheritance) {
        memory = config_.inheritance->rings();
        if (!memory) return "there is no memory for them that a successor would have";
        if (ring_bytes(config_) > config_.inheritance->ring_bytes())
            return "the memory that is held for them is too small";
    }
    for (unsigned queue = 0; queue < queues; ++queue) {
        ring_counts_.push_back(std::make_unique<OpcodeCounts>());
        RingSettings settings;
        settings.device = mount_.device().get();
        settings.session = this;
        settings.queue = queue;
        settings.depth = depth;
        settings.max_payload = config_.max_write;
        settings.counts = ring_counts_.back().get();
        settings.parked = &parked_;
        if (memory) {
            settings.region = memory + queue * depth * ring_stride(config_.max_write);
            if (replaying_) settings.inheritance = config_.inheritance;
            settings.fetched = &config_.inheritance->fetched(queue);
        }
        settings.on_end = [this](const char* reason) { ended(reason); };
        rings_.push_back(std::make_unique<RingQueue>(std::move(settings)));
        if (auto prepared = rings_.back()->prepare(); !prepared) return prepared.error().message();
    }
    report_.queues = queues;
    report_.depth = depth;
    return {};
}

std::string Session::try_passthrough() {
    if (!config_.passthrough) return "it is turned off";
    if (!report_.custom_io) return "this libfuse was built without custom io";
    if (!(report_.init_accepted & kInitPassthrough))
        return "the kernel does not offer it (Linux 6.9 with FUSE_PASSTHROUGH does)";
    const Fd file(::memfd_create("ipcfs-probe", MFD_CLOEXEC));
    if (!file) return errno_fault("memfd_create").message();
    auto backing = open_backing(file.get());
    if (backing) {
        close_backing(*backing);
        return {};
    }
    if (backing.error().code == EPERM) return "it needs the capability CAP_SYS_ADMIN";
    return backing.error().message();
}

}  // namespace ipcfs::fuse
