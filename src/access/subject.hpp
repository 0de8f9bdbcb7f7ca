// Who makes a request. The door takes this from the kernel or from authentication, never from what
// the client says. Plain values, any thread.
#pragma once

#include <sys/types.h>
#include <utility>
#include <vector>

namespace ipcfs::access {

struct Subject {
    uid_t uid = 0;
    gid_t gid = 0;
    pid_t pid = 0;  // thread-group id; 0 where the client's process is not visible from here
    pid_t tid = 0;  // thread id as the kernel gave it; 0 in the same case
};

// A user's credentials for permission bits and ACLs, independent of any process.
struct Identity {
    Identity(uid_t user, gid_t group, std::vector<gid_t> supplementary = {})
        : uid(user), gid(group), groups(std::move(supplementary)) {}
    Identity(const Subject& subject) : Identity(subject.uid, subject.gid) {}

    uid_t uid;
    gid_t gid;
    std::vector<gid_t> groups;  // supplementary
};

}  // namespace ipcfs::access
