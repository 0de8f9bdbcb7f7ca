#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <sys/utsname.h>
#include <unistd.h>

#include <fuse/probe.hpp>

namespace ipcfs::fuse {

namespace {

std::optional<std::string> first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    if (!file || !std::getline(file, line)) return std::nullopt;
    return line;
}

std::uint64_t number_in(const char* path) {
    const auto line = first_line(path).value_or("");
    std::uint64_t value = 0;
    std::from_chars(line.data(), line.data() + line.size(), value);
    return value;
}

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned code = 0;
        if (text[i] == '\\' && i + 3 < text.size() &&
            std::from_chars(text.data() + i + 1, text.data() + i + 4, code, 8).ptr ==
                text.data() + i + 4) {
            plain += static_cast<char>(code);
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

}  // namespace

KernelFacts probe_kernel() {
    KernelFacts facts;
    utsname names{};
    if (::uname(&names) == 0) facts.release = names.release;
    if (const auto word = first_line("/sys/module/fuse/parameters/enable_uring"))
        facts.uring_enabled = !word->empty() && ((*word)[0] == 'Y' || (*word)[0] == '1');
    facts.default_request_timeout = number_in("/proc/sys/fs/fuse/default_request_timeout");
    facts.max_request_timeout = number_in("/proc/sys/fs/fuse/max_request_timeout");
    return facts;
}

std::optional<MountEntry> top_mount_at(const std::string& path) {
    std::optional<MountEntry> top;
    std::ifstream file("/proc/self/mountinfo");
    for (std::string line; std::getline(file, line);) {
        // 36 35 98:0 /root /mount/point options [optional...] - type source options
        std::istringstream words(line);
        std::string id, parent, device, root, at, word, type;
        words >> id >> parent >> device >> root >> at;
        while (words >> word && word != "-") {
        }
        words >> type;
        if (words && unescape(at) == path) top = {std::move(device), std::move(type)};
    }
    return top;
}

unsigned possible_cpus() {
    // "0-3" or "0,2-5": the kernel numbers its queues without holes, so the highest one counts.
    const auto list = first_line("/sys/devices/system/cpu/possible").value_or("");
    const auto last = list.find_last_of("-,");
    const char* begin = list.data() + (last == std::string::npos ? 0 : last + 1);
    unsigned highest = 0;
    if (std::from_chars(begin, list.data() + list.size(), highest).ec == std::errc{})
        return highest + 1;
    return static_cast<unsigned>(std::max(1L, ::sysconf(_SC_NPROCESSORS_CONF)));
}

}  // namespace ipcfs::fuse
