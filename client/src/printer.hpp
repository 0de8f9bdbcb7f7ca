// Prints messages, raw or as JSON, to standard output or a file. One thread.
#pragma once

#include <string>
#include <string_view>

#include <io.hpp>
#include <message_body.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

struct PrintOptions {
    bool nul = false;      // end each message with NUL
    bool newline = false;  // end each message with a newline if it has none
    std::string output;    // write to this file instead of standard output
};

class Printer {
public:
    Printer(const Channel& channel, const PrintOptions& options, bool json);

    void show(const FrameView& frame, bool leased = false) const;
    void show(std::string_view body) const;

private:
    void write_body(const MessageBody& body) const;
    // Writes the end of a body whose last byte is `last`, with its terminator.
    void write_last(std::string_view rest, char last) const;
    bool ends_line() const;
    int target() const { return output_ ? output_.get() : STDOUT_FILENO; }
    std::string shown_target() const;

    const Channel& channel_;
    const PrintOptions& options_;
    const bool json_;
    const Fd output_;
};

}  // namespace ipcfs::client
