/*
 * The C interface of ipcfs: the basics, for C and for all that binds to C. In libipcfs (-lipcfs, or
 * pkg-config ipcfs-c). The C++ header (ipcfs.hpp) has more, and is what this is made of.
 *
 * Functions that can fail return 0 or a negative errno; ipcfs_last_error() says it in words. No signal
 * is raised, no handler installed. Different objects may be used by different threads, and a channel by
 * any number of them; a message, a loan or a lease by one at a time. A forked child may go on using a
 * channel, not a loan nor a lease. Timeouts are in nanoseconds: negative waits without a limit, 0 does not wait.
 *
 * A pointer to options may be NULL: the defaults. Else set its `struct_size`, or use the initializer.
 */
#ifndef IPCFS_IPCFS_H
#define IPCFS_IPCFS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define IPCFS_API __attribute__((visibility("default")))
#else
#define IPCFS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ipcfs_channel ipcfs_channel;
typedef struct ipcfs_message ipcfs_message;
typedef struct ipcfs_loan ipcfs_loan;
typedef struct ipcfs_lease ipcfs_lease;

/* The header of every message; see docs/frames.md. */
typedef struct ipcfs_header {
    uint32_t magic;
    uint8_t version;
    uint8_t type; /* enum ipcfs_type */
    uint16_t header_length;
    uint16_t flags;   /* 0x0002 expires at its deadline, 0x0100 redelivered */
    uint8_t priority; /* 0 lowest, 128 normal, 255 critical */
    uint8_t reserved;
    uint32_t crc32c;
    uint64_t sequence; /* of the message in its channel, from 1 */
    uint64_t message_id;
    uint64_t correlation_id;
    uint64_t time;     /* of arrival, ns since 1970 */
    uint64_t deadline; /* ns since 1970; 0: none */
    uint32_t sender_pid;
    uint32_t sender_tid;
    uint32_t sender_uid;
    uint32_t sender_gid;
    uint64_t capability_id;
    uint64_t payload_id; /* 0: the body is in the message itself */
    uint64_t body_length;
} ipcfs_header;

enum ipcfs_type {
    IPCFS_CONTROL = 1,
    IPCFS_DATA = 2,
    IPCFS_EVENT = 3,
    IPCFS_CAPABILITY = 4,
    IPCFS_HANDOFF = 5,
    IPCFS_REQUEST = 6,
    IPCFS_RESPONSE = 7,
    IPCFS_ERROR = 8
};

typedef struct ipcfs_open_options {
    size_t struct_size;
    int create;           /* not 0: make the channel unless it is there */
    unsigned mode;        /* of a channel that is made, less the umask */
    int refuse_pooled;    /* not 0: replace each pooled payload by a sealed copy */
    unsigned pool_chunks; /* chunks of each pool that this channel makes; 0: 8 */
    int interruptible;    /* not 0: waiting calls give -EINTR when a signal handler has run */
} ipcfs_open_options;
#define IPCFS_OPEN_OPTIONS_INIT \
    { sizeof(ipcfs_open_options), 0, 0777, 0, 0, 0 }

typedef struct ipcfs_send_options {
    size_t struct_size;
    int64_t timeout; /* for room */
    int64_t ttl;     /* ns after which it is dropped instead of delivered; 0: never */
    uint64_t message_id;
    uint64_t correlation_id;
    uint8_t priority;
    uint8_t type;             /* enum ipcfs_type */
    const char* content_type; /* NULL: none */
    const char* group;        /* on type multicast: whom it is for; NULL: none */
    const char* method;       /* NULL: none */
} ipcfs_send_options;
#define IPCFS_SEND_OPTIONS_INIT \
    { sizeof(ipcfs_send_options), -1, 0, 0, 0, 128, IPCFS_DATA, NULL, NULL, NULL }

typedef struct ipcfs_subscribe_options {
    size_t struct_size;
    const char*
        name; /* of a subscription that lasts, TOPIC/subs/NAME; NULL: one that ends with its channel */
    int create;    /* not 0: make it unless it is there */
    unsigned mode; /* of one that is made, less the umask */
    const char*
        filter; /* what it gets, a condition a line; NULL: as it is, of a new one everything */
    int refuse_pooled;
    int interruptible;
} ipcfs_subscribe_options;
#define IPCFS_SUBSCRIBE_OPTIONS_INIT \
    { sizeof(ipcfs_subscribe_options), NULL, 0, 0777, NULL, 0, 0 }

/* Words for what the last failed call of this thread returned; valid until its next failure. */
IPCFS_API const char* ipcfs_last_error(void);
/* "0.1.0" */
IPCFS_API const char* ipcfs_version(void);

/* `name`: a path such as "/ipc/jobs", or a name in the tree of $IPCFS_MOUNT (else /ipc) such as "jobs".
 * -ENOENT, -EACCES, ... */
IPCFS_API int ipcfs_open(const char* name, const ipcfs_open_options* options, ipcfs_channel** out);
/* Never blocks. NULL is allowed. Messages and loans may outlive it. */
IPCFS_API void ipcfs_close(ipcfs_channel* channel);

/* Sends a copy of `size` bytes, of any size up to the channel's max-payload. -EAGAIN, -ETIMEDOUT: no room in
 * time; -EMSGSIZE too large; -ENOBUFS full, with `overflow reject`; -EPIPE channel removed; -EDQUOT. */
IPCFS_API int ipcfs_send(ipcfs_channel* channel, const void* data, size_t size,
                         const ipcfs_send_options* options);
/* The same without waiting, whatever options say. */
IPCFS_API int ipcfs_try_send(ipcfs_channel* channel, const void* data, size_t size,
                             const ipcfs_send_options* options);

/* Memory for a body of `size` bytes that is sent without a copy. `timeout`: for a chunk of a pool to come
 * back when all are lent. */
IPCFS_API int ipcfs_loan_take(ipcfs_channel* channel, size_t size, int64_t timeout,
                              ipcfs_loan** out);
/* Where to write; NULL once it was sealed by a send that then failed (which can be tried again). */
IPCFS_API void* ipcfs_loan_data(ipcfs_loan* loan);
IPCFS_API size_t ipcfs_loan_size(const ipcfs_loan* loan);
/* Another size of the body; -EINVAL when there is less room. */
IPCFS_API int ipcfs_loan_resize(ipcfs_loan* loan, size_t size);
/* Sends and frees it; when that fails it is the caller's still. */
IPCFS_API int ipcfs_send_loan(ipcfs_channel* channel, ipcfs_loan* loan,
                              const ipcfs_send_options* options);
/* Gives it back unsent. NULL is allowed. */
IPCFS_API void ipcfs_loan_free(ipcfs_loan* loan);

/* Takes the next message. -EAGAIN, -ETIMEDOUT: none in time; -EPIPE: the channel was removed. */
IPCFS_API int ipcfs_receive(ipcfs_channel* channel, int64_t timeout, ipcfs_message** out);
/* Subscribes to a topic: what is published is received from the channel that this gives, by ipcfs_receive, or,
 * if the subscription has a name, on lease. Publishing is ipcfs_send on a channel that was opened by ipcfs_open.
 * -ENOENT no such topic or name; -EACCES; -EINVAL no topic, or a bad filter, which ipcfs_last_error() explains. */
IPCFS_API int ipcfs_subscribe(const char* topic, const ipcfs_subscribe_options* options,
                              ipcfs_channel** out);

/* Takes the next message on trial: unless it is acknowledged in time it comes back. Types queue and batch, and
 * subscriptions that have a name. Errors as ipcfs_receive; -ENOENT: the type has no leases. */
IPCFS_API int ipcfs_lease_take(ipcfs_channel* channel, int64_t timeout, ipcfs_lease** out);
/* What was taken: the lease's, valid until that is freed. Not to be freed itself. */
IPCFS_API ipcfs_message* ipcfs_lease_message(ipcfs_lease* lease);
/* Each of these ends the lease, which is still to be freed. -ESTALE: it had ended before, and nothing was done.
 * Done: the message is gone. */
IPCFS_API int ipcfs_lease_ack(ipcfs_lease* lease);
/* Not done: it comes back after `delay` ns, or at once (0). */
IPCFS_API int ipcfs_lease_nack(ipcfs_lease* lease, int64_t delay);
/* Never to be done: a dead letter. */
IPCFS_API int ipcfs_lease_dead(ipcfs_lease* lease);
/* `time` ns from now on, in place of what was left. */
IPCFS_API int ipcfs_lease_extend(ipcfs_lease* lease, int64_t time);
/* One that has not ended is given back; does not wait. NULL is allowed. */
IPCFS_API void ipcfs_lease_free(ipcfs_lease* lease);

/* Lets go of it and all that it gave. NULL is allowed. */
IPCFS_API void ipcfs_message_free(ipcfs_message* message);
IPCFS_API const ipcfs_header* ipcfs_message_header(const ipcfs_message* message);
/* Size of the body in bytes, wherever it is. */
IPCFS_API uint64_t ipcfs_message_size(const ipcfs_message* message);
/* The body: in the message, or mapped read-only at the first call. Valid until the message is freed, or
 * unmapped. */
IPCFS_API int ipcfs_message_map(ipcfs_message* message, const void** data, size_t* size);
/* Lets go of a payload now: its memory is not needed any more. The header stays. */
IPCFS_API void ipcfs_message_unmap(ipcfs_message* message);
/* An extension's value (type 2: content type). -ENOENT: there is none. */
IPCFS_API int ipcfs_message_extension(const ipcfs_message* message, uint16_t type,
                                      const void** data, size_t* size);

/* For poll, select and epoll: POLLIN a message waits, POLLOUT a small one can be sent. The channel's own, not
 * to be read, written or closed. */
IPCFS_API int ipcfs_receive_fd(ipcfs_channel* channel);
IPCFS_API int ipcfs_send_fd(ipcfs_channel* channel);

#ifdef __cplusplus
}
#endif

#endif
