// Everything of the client header. C++20, header only: libc, libstdc++ and the kernel's headers, and -pthread.
// See docs/client.md for a tour and include/ipcfs/frame.hpp for what a message is made of.
#pragma once

#include <ipcfs/batch.hpp>
#include <ipcfs/channel.hpp>
#include <ipcfs/frame.hpp>
#include <ipcfs/lease.hpp>
#include <ipcfs/loan.hpp>
#include <ipcfs/message.hpp>
#include <ipcfs/notifier.hpp>
#include <ipcfs/options.hpp>
#include <ipcfs/payload.hpp>
#include <ipcfs/result.hpp>
#include <ipcfs/subscription.hpp>
#include <ipcfs/typed.hpp>

#if __has_include(<ipcfs/lazy.hpp>)
#include <ipcfs/lazy.hpp>
#endif
#if __has_include(<ipcfs/page_map.hpp>)
#include <ipcfs/page_map.hpp>
#endif
#if __has_include(<ipcfs/region.hpp>)
#include <ipcfs/region.hpp>
#endif
