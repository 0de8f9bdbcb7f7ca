/*
 * The C interface of ipcfs: the basic functions, for C and for languages that bind to C. In libipcfs
 * (-lipcfs, or pkg-config ipcfs-c). The C++ header (ipcfs.hpp), on which it is built, offers more.
 *
 * Functions that can fail return 0 or a negative errno; ipcfs_last_error() explains it. No signal is raised
 * and no handler installed. Any number of threads may use one channel at the same time; one message, loan
 * or lease must be used by one thread at a time. A forked child may use its parent's channels, but not its
 * loans or leases. Timeouts are in nanoseconds: negative waits without limit, 0 does not wait.
 *
 * A pointer to options may be NULL for the defaults. Otherwise set its `struct_size`, or use the initializer.
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
    int create;           /* not 0: create the channel if missing */
    unsigned mode;        /* of a new channel, less the umask */
    int refuse_pooled;    /* not 0: replace each pooled payload by a sealed copy */
    unsigned pool_chunks; /* chunks of each pool that this channel makes; 0 means 8 */
    int interruptible;    /* not 0: waiting calls return -EINTR after a signal handler has run */
} ipcfs_open_options;
#define IPCFS_OPEN_OPTIONS_INIT \
    { sizeof(ipcfs_open_options), 0, 0777, 0, 0, 0 }

typedef struct ipcfs_send_options {
    size_t struct_size;
    int64_t timeout; /* for room in the channel */
    int64_t ttl;     /* ns after which the message is dropped; 0: never */
    uint64_t message_id;
    uint64_t correlation_id;
    uint8_t priority;
    uint8_t type;             /* enum ipcfs_type */
    const char* content_type; /* NULL: none */
    const char* group;        /* on type multicast: the receiving groups; NULL: none */
    const char* method;       /* NULL: none */
} ipcfs_send_options;
#define IPCFS_SEND_OPTIONS_INIT \
    { sizeof(ipcfs_send_options), -1, 0, 0, 0, 128, IPCFS_DATA, NULL, NULL, NULL }

typedef struct ipcfs_subscribe_options {
    size_t struct_size;
    const char*
        name; /* of a persistent subscription, TOPIC/subs/NAME; NULL: one that ends with its channel */
    int create;         /* not 0: create it if missing */
    unsigned mode;      /* of a new one, less the umask */
    const char* filter; /* one condition a line; NULL: unchanged, for a new one everything */
    int refuse_pooled;
    int interruptible;
} ipcfs_subscribe_options;
#define IPCFS_SUBSCRIBE_OPTIONS_INIT \
    { sizeof(ipcfs_subscribe_options), NULL, 0, 0777, NULL, 0, 0 }

/* A text for the last failed call of this thread; valid until the thread's next failure. */
IPCFS_API const char* ipcfs_last_error(void);
/* "0.1.0" */
IPCFS_API const char* ipcfs_version(void);

/* `name`: a path such as "/ipc/jobs", or a name in the tree of $IPCFS_MOUNT (else /ipc) such as "jobs".
 * -ENOENT, -EACCES, ... */
IPCFS_API int ipcfs_open(const char* name, const ipcfs_open_options* options, ipcfs_channel** out);
/* Never blocks. NULL is allowed. Messages and loans may outlive the channel. */
IPCFS_API void ipcfs_close(ipcfs_channel* channel);

/* Sends a copy of `size` bytes, at most the channel's max-payload. -EAGAIN, -ETIMEDOUT: no room in time;
 * -EMSGSIZE: too large; -ENOBUFS: full, with `overflow reject`; -EPIPE: channel removed; -EDQUOT: above a limit. */
IPCFS_API int ipcfs_send(ipcfs_channel* channel, const void* data, size_t size,
                         const ipcfs_send_options* options);
/* Like ipcfs_send without waiting; ignores the timeout in `options`. */
IPCFS_API int ipcfs_try_send(ipcfs_channel* channel, const void* data, size_t size,
                             const ipcfs_send_options* options);

/* Lends memory for a body of `size` bytes that is sent without a copy. `timeout`: how long to wait if all
 * chunks of the pool are lent. */
IPCFS_API int ipcfs_loan_take(ipcfs_channel* channel, size_t size, int64_t timeout,
                              ipcfs_loan** out);
/* Where to write the body. NULL after a send that failed once the memory was sealed; it can be sent again. */
IPCFS_API void* ipcfs_loan_data(ipcfs_loan* loan);
IPCFS_API size_t ipcfs_loan_size(const ipcfs_loan* loan);
/* Changes the size of the body; -EINVAL above the capacity. */
IPCFS_API int ipcfs_loan_resize(ipcfs_loan* loan, size_t size);
/* Sends and frees the loan; after an error the caller keeps it. */
IPCFS_API int ipcfs_send_loan(ipcfs_channel* channel, ipcfs_loan* loan,
                              const ipcfs_send_options* options);
/* Gives the loan back unsent. NULL is allowed. */
IPCFS_API void ipcfs_loan_free(ipcfs_loan* loan);

/* Takes the next message. -EAGAIN, -ETIMEDOUT: none in time; -EPIPE: the channel was removed. */
IPCFS_API int ipcfs_receive(ipcfs_channel* channel, int64_t timeout, ipcfs_message** out);
/* Subscribes to a topic. Receive from the returned channel with ipcfs_receive, or, if the subscription has a
 * name, with ipcfs_lease_take. To publish, use ipcfs_send on a channel from ipcfs_open. -ENOENT: no such topic or
 * name; -EACCES; -EINVAL: not a topic, or an invalid filter, which ipcfs_last_error() explains. */
IPCFS_API int ipcfs_subscribe(const char* topic, const ipcfs_subscribe_options* options,
                              ipcfs_channel** out);

/* Takes the next message as a lease: it is redelivered unless acknowledged in time. For types queue and batch,
 * and named subscriptions. Errors as ipcfs_receive; -ENOENT: the type has no leases. */
IPCFS_API int ipcfs_lease_take(ipcfs_channel* channel, int64_t timeout, ipcfs_lease** out);
/* The leased message. It belongs to the lease and is valid until that is freed; do not free it. */
IPCFS_API ipcfs_message* ipcfs_lease_message(ipcfs_lease* lease);
/* Each of these except extend ends the lease, which must still be freed. -ESTALE: it had ended before, and nothing
 * was done. Acknowledge: the work is done, and the message is removed. */
IPCFS_API int ipcfs_lease_ack(ipcfs_lease* lease);
/* The work could not be done: redelivers the message after `delay` ns, or at once (0). */
IPCFS_API int ipcfs_lease_nack(ipcfs_lease* lease, int64_t delay);
/* The work can never be done: makes the message a dead letter. */
IPCFS_API int ipcfs_lease_dead(ipcfs_lease* lease);
/* Sets the lease to expire `time` ns from now. */
IPCFS_API int ipcfs_lease_extend(ipcfs_lease* lease, int64_t time);
/* Frees the lease; one that has not ended gives the message back. Does not wait. NULL is allowed. */
IPCFS_API void ipcfs_lease_free(ipcfs_lease* lease);

/* Frees the message and everything obtained from it. NULL is allowed. */
IPCFS_API void ipcfs_message_free(ipcfs_message* message);
IPCFS_API const ipcfs_header* ipcfs_message_header(const ipcfs_message* message);
/* The size of the body in bytes, payload or not. */
IPCFS_API uint64_t ipcfs_message_size(const ipcfs_message* message);
/* The body: in the message, or a payload mapped read-only at the first call. Valid until the message is freed
 * or unmapped. */
IPCFS_API int ipcfs_message_map(ipcfs_message* message, const void** data, size_t* size);
/* Releases the memory of a payload early. The header stays valid. */
IPCFS_API void ipcfs_message_unmap(ipcfs_message* message);
/* The value of an extension, such as type 2, the content type. -ENOENT: there is none. */
IPCFS_API int ipcfs_message_extension(const ipcfs_message* message, uint16_t type,
                                      const void** data, size_t* size);

/* For poll, select and epoll: POLLIN if a message waits, POLLOUT if a small one can be sent. The channel owns the
 * descriptor: do not read, write or close it. */
IPCFS_API int ipcfs_receive_fd(ipcfs_channel* channel);
IPCFS_API int ipcfs_send_fd(ipcfs_channel* channel);

#ifdef __cplusplus
}
#endif

#endif
