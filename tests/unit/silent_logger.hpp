// A logger for tests whose subject logs what does not matter.
#pragma once

#include <base/log.hpp>

namespace ipcfs {

// Discards every line.
class SilentLogger final : public Logger {
public:
    SilentLogger() noexcept : Logger(Level::kOff) {}

protected:
    void emit(Level, std::string_view) noexcept override {}
};

}  // namespace ipcfs
