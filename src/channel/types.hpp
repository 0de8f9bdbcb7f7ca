// The types of channels, a row each: its value of Type, its name in `ctl`, and what makes its Discipline.
#pragma once

#define IPCFS_CHANNEL_TYPES(ROW)                                               \
    ROW(kQueue, "queue", make_queue)                                           \
    ROW(kSync, "sync", make_sync)                                              \
    ROW(kBatch, "batch", make_queue) /* its gate is a setting */               \
    ROW(kTopic, "topic", make_topic)                                           \
    ROW(kMulticast, "multicast", make_topic) /* filters look at groups, too */ \
    ROW(kStream, "stream", make_stream)
