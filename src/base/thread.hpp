// How the daemon starts its threads.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace ipcfs {

// A thread with that name (its first 15 bytes), with signals blocked, since the main thread handles them, and on the
// CPUs of the main thread: the caller may be pinned to one. Throws std::system_error where there is none to be
// had. Any thread.
std::thread start_thread(const std::string& name, std::function<void()> run);

}  // namespace ipcfs
