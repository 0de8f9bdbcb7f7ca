// Who asks: taken by a door from the kernel or from authentication, never from the client's words.
// Values; any thread.
#pragma once

#include <sys/types.h>

namespace ipcfs::access {

struct Subject {
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;  // thread-group id; 0 where the client's process is not visible from here
    pid_t tid = 0;  // thread id as the kernel gave it; 0 likewise
};

}  // namespace ipcfs::access
