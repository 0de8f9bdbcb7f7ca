// How the files of the table are opened. Private to src/tree; any thread.
#pragma once

#include <tree/file_kind.hpp>

namespace ipcfs::tree {

Opened open_messages(const OpenRequest& request);
Opened open_stream(const OpenRequest& request);  // bytes in a channel of type stream, else messages
Opened open_lease(const OpenRequest& request);
Opened open_put(const OpenRequest& request);
Opened open_payload(const OpenRequest& request);
Opened open_region(const OpenRequest& request);
Opened open_notify(const OpenRequest& request);
Opened open_text(const OpenRequest& request);

}  // namespace ipcfs::tree
