// Listeners to a channel's events that outlive the open file or the connection that asked for them: a
// signal, or a count in a client's eventfd. Private to src/tree. Any thread.
#pragma once

#include <memory>
#include <string_view>

#include <access/account.hpp>
#include <access/subject.hpp>
#include <base/event_adder.hpp>
#include <base/fd.hpp>
#include <base/result.hpp>
#include <channel/endpoint.hpp>

namespace ipcfs::tree {

using MadeListener = Result<std::shared_ptr<channel::EventListener>>;

// Sends `signal` to the process of `subject` until it ends. EINVAL, EPERM (SIGKILL, SIGSTOP), ESRCH
// where the process is not visible, EDQUOT.
MadeListener make_signal(channel::Endpoint& channel, int signal, std::string_view filter,
                         const access::Subject& subject, access::Account& account);
// The same by a text as written to `notify`: `signal SIGUSR1 [filter]`. It is added to the channel.
Result<void> register_signal(channel::Endpoint& channel, std::string_view text,
                             const access::Subject& subject, access::Account& account);
// Adds one to an eventfd for each event, and waits for nobody who shares it. EINVAL, EDQUOT.
MadeListener make_counter(Fd counter, std::shared_ptr<EventAdder> adder, std::string_view filter,
                          access::Account& account);

}  // namespace ipcfs::tree
