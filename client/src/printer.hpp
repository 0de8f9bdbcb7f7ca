// Messages as they are printed: raw, or as JSON, to standard output or into a file. One thread.
#pragma once

#include <string>
#include <string_view>

#include <content.hpp>
#include <io.hpp>
#include <json.hpp>
#include <tree.hpp>

#include <ipcfs/frame.hpp>

namespace ipcfs::client {

struct PrintOptions {
    bool nul = false;      // ends each message
    bool newline = false;  // ends each that has none
    std::string output;    // a file in place of standard output
};

class Printer {
public:
    // Creates the file.
    Printer(const Channel& channel, const PrintOptions& options, bool json);

    void show(const FrameView& frame, bool leased = false) const;
    // A body of which there is no header.
    void show(std::string_view body) const;

private:
    void write_content(const Content& content, int fd, const std::string& shown,
                       bool terminal) const;
    bool ends_line(bool terminal) const;
    // Where bodies go, if not into JSON.
    int target() const { return output_ ? output_.get() : STDOUT_FILENO; }
    std::string shown_target() const;

    const Channel& channel_;
    const PrintOptions& options_;
    const bool json_;
    const Fd output_;
};

}  // namespace ipcfs::client
