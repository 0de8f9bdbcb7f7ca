// The logging interface. A Logger is passed in, never looked up; src/daemon/log.hpp implements it.
// Any thread may write, but not while holding a lock. A line below the enabled level costs one
// relaxed load.
#pragma once

#include <array>
#include <atomic>
#include <charconv>
#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>

namespace ipcfs {

enum class Level : std::uint8_t { kTrace, kDebug, kInfo, kWarn, kError, kCritical, kOff };

// The names used in the configuration, in the order of Level.
constexpr std::array<std::string_view, 7> kLevelNames{"trace", "debug",    "info", "warn",
                                                      "error", "critical", "off"};

// Thread-safe. Pass lines without a newline. The implementation escapes newlines inside a line, so
// that text from a client cannot forge a log line.
class Logger {
public:
    explicit Logger(Level level = Level::kInfo) noexcept : level_(level) {}
    Logger(const Logger&) = delete;
    Logger& operator=(const Logger&) = delete;
    virtual ~Logger() = default;

    Level level() const noexcept { return level_.load(std::memory_order_relaxed); }
    void set_level(Level level) noexcept { level_.store(level, std::memory_order_relaxed); }
    bool enabled(Level level) const noexcept {
        return level != Level::kOff && level >= this->level();
    }

    // log.info("mounted ", path, ", pid ", pid) joins strings, characters and integers into a line, which is written
    // if the level is enabled. Never throws: a line that cannot be written is lost.
    template <class... Parts>
    void log(Level level, const Parts&... parts) noexcept {
        if (!enabled(level)) return;
        try {
            std::string line;
            (append(line, parts), ...);
            emit(level, line);
        } catch (...) {
            emit(level, "(a log line was lost: out of memory)");
        }
    }
    template <class... Parts>
    void debug(const Parts&... parts) noexcept {
        log(Level::kDebug, parts...);
    }
    template <class... Parts>
    void info(const Parts&... parts) noexcept {
        log(Level::kInfo, parts...);
    }
    template <class... Parts>
    void warn(const Parts&... parts) noexcept {
        log(Level::kWarn, parts...);
    }
    template <class... Parts>
    void error(const Parts&... parts) noexcept {
        log(Level::kError, parts...);
    }
    template <class... Parts>
    void critical(const Parts&... parts) noexcept {
        log(Level::kCritical, parts...);
    }

protected:
    // Called only for enabled levels, from any thread.
    virtual void emit(Level level, std::string_view line) noexcept = 0;

private:
    static void append(std::string& line, std::string_view text) { line += text; }
    template <std::integral T>
    static void append(std::string& line, T value) {
        if constexpr (std::same_as<T, bool>) {
            line += value ? "yes" : "no";
        } else if constexpr (std::same_as<T, char>) {
            line += value;
        } else {
            char digits[24];
            line.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
        }
    }

    std::atomic<Level> level_;
};

}  // namespace ipcfs
