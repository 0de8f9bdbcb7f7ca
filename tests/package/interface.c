/* The C interface, call by call, on the channel argv[1] of capacity 10. Prints what is not as it should
 * be, and is as many failures as that. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ipcfs/ipcfs.h>

static int failures;

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            printf("line %d: %s (%s)\n", __LINE__, #condition, ipcfs_last_error()); \
            ++failures;                                                             \
        }                                                                           \
    } while (0)

static void errors(ipcfs_channel* channel) {
    ipcfs_channel* none = NULL;
    ipcfs_message* message = NULL;
    CHECK(ipcfs_open("/nowhere/at/all", NULL, &none) == -ENOENT && none == NULL);
    CHECK(strstr(ipcfs_last_error(), "No such file") != NULL);
    CHECK(ipcfs_open(NULL, NULL, &none) == -EINVAL);
    CHECK(ipcfs_send(NULL, "x", 1, NULL) == -EINVAL);
    CHECK(ipcfs_send(channel, NULL, 1, NULL) == -EINVAL);
    CHECK(ipcfs_receive(channel, 0, &message) == -EAGAIN);
    CHECK(ipcfs_receive(channel, 1000000, &message) == -ETIMEDOUT && message == NULL);
    CHECK(ipcfs_receive(channel, 0, NULL) == -EINVAL);
    ipcfs_close(NULL);
    ipcfs_message_free(NULL);
    ipcfs_loan_free(NULL);
    ipcfs_message_unmap(NULL);
}

static void messages(ipcfs_channel* channel) {
    ipcfs_send_options options = IPCFS_SEND_OPTIONS_INIT;
    ipcfs_message* message = NULL;
    const void* data = NULL;
    size_t size = 0;
    int i;
    struct pollfd poll_in = {-1, POLLIN, 0};

    options.priority = 255;
    options.type = IPCFS_REQUEST;
    options.correlation_id = 42;
    options.content_type = "text/plain";
    CHECK(ipcfs_send(channel, "hello", 5, &options) == 0);
    poll_in.fd = ipcfs_receive_fd(channel);
    CHECK(poll(&poll_in, 1, 20000) == 1 && (poll_in.revents & POLLIN) != 0);
    CHECK(ipcfs_receive(channel, -1, &message) == 0);
    CHECK(ipcfs_message_header(message)->priority == 255);
    CHECK(ipcfs_message_header(message)->type == IPCFS_REQUEST);
    CHECK(ipcfs_message_header(message)->correlation_id == 42);
    CHECK(ipcfs_message_header(message)->sender_pid == (uint32_t)getpid());
    CHECK(ipcfs_message_map(message, &data, &size) == 0 && size == 5 &&
          memcmp(data, "hello", 5) == 0);
    CHECK(ipcfs_message_extension(message, 2, &data, &size) == 0 && size == 10);
    CHECK(ipcfs_message_extension(message, 3, &data, &size) == -ENOENT);
    ipcfs_message_free(message);

    /* Full: eight of ten for all, the rest for what is critical. */
    for (i = 0; i < 8; ++i) CHECK(ipcfs_send(channel, "x", 1, NULL) == 0);
    CHECK(ipcfs_try_send(channel, "x", 1, NULL) == -EAGAIN);
    options.priority = 0;
    options.timeout = 1000000;
    CHECK(ipcfs_send(channel, "x", 1, &options) == -ETIMEDOUT);
    /* A program that was compiled with an older header gives less of the structure. */
    options.struct_size = offsetof(ipcfs_send_options, ttl);
    CHECK(ipcfs_send(channel, "x", 1, &options) == -ETIMEDOUT);
    for (i = 0; i < 8; ++i) {
        CHECK(ipcfs_receive(channel, 0, &message) == 0);
        ipcfs_message_free(message);
    }
}

static void loans(ipcfs_channel* channel, int pooled) {
    const size_t large = 3000000;
    ipcfs_loan* loan = NULL;
    ipcfs_message* message = NULL;
    const unsigned char* bytes = NULL;
    const void* data = NULL;
    size_t size = 0;

    CHECK(ipcfs_loan_take(channel, large, -1, &loan) == 0);
    CHECK(ipcfs_loan_size(loan) == large);
    CHECK(ipcfs_loan_resize(loan, (size_t)1 << 40) == -EINVAL);
    CHECK(ipcfs_loan_resize(loan, large - 1) == 0);
    memset(ipcfs_loan_data(loan), 0x5a, large - 1);
    CHECK(ipcfs_send_loan(channel, loan, NULL) == 0);
    CHECK(ipcfs_receive(channel, -1, &message) == 0);
    CHECK(ipcfs_message_size(message) == large - 1);
    CHECK(ipcfs_message_header(message)->payload_id != 0);
    CHECK(ipcfs_message_map(message, &data, &size) == 0 && size == large - 1);
    bytes = data;
    CHECK(bytes[0] == 0x5a && bytes[large - 2] == 0x5a);
    ipcfs_message_unmap(message);
    CHECK(ipcfs_message_header(message)->sender_pid == (uint32_t)getpid());
    ipcfs_message_free(message);

    /* Of a pool of one chunk there is one. */
    CHECK(ipcfs_loan_take(channel, 100000, 0, &loan) == 0);
    if (pooled) {
        ipcfs_loan* second = NULL;
        CHECK(ipcfs_loan_take(channel, 100000, 0, &second) == -EAGAIN && second == NULL);
    }
    ipcfs_loan_free(loan);
    CHECK(ipcfs_loan_take(channel, 100000, 0, &loan) == 0);
    ipcfs_loan_free(loan);
}

static void leases(ipcfs_channel* channel) {
    ipcfs_lease* lease = NULL;
    const void* data = NULL;
    size_t size = 0;

    CHECK(ipcfs_lease_take(channel, 0, &lease) == -EAGAIN && lease == NULL);
    CHECK(ipcfs_lease_take(NULL, 0, &lease) == -EINVAL);
    CHECK(ipcfs_lease_ack(NULL) == -EINVAL);
    CHECK(ipcfs_lease_message(NULL) == NULL);
    ipcfs_lease_free(NULL);
    CHECK(ipcfs_send(channel, "job", 3, NULL) == 0);
    CHECK(ipcfs_lease_take(channel, -1, &lease) == 0);
    CHECK(ipcfs_message_map(ipcfs_lease_message(lease), &data, &size) == 0 && size == 3);
    CHECK((ipcfs_message_header(ipcfs_lease_message(lease))->flags & 0x100) == 0);
    CHECK(ipcfs_lease_extend(lease, 1000000000) == 0);
    CHECK(ipcfs_lease_nack(lease, 0) == 0);
    CHECK(ipcfs_lease_nack(lease, 0) == -ESTALE);
    CHECK(strstr(ipcfs_last_error(), "ended") != NULL);
    ipcfs_lease_free(lease);
    CHECK(ipcfs_lease_take(channel, -1, &lease) == 0);
    CHECK((ipcfs_message_header(ipcfs_lease_message(lease))->flags & 0x100) != 0);
    CHECK(ipcfs_lease_ack(lease) == 0);
    ipcfs_lease_free(lease);
    CHECK(ipcfs_send(channel, "never", 5, NULL) == 0);
    CHECK(ipcfs_lease_take(channel, -1, &lease) == 0);
    CHECK(ipcfs_lease_dead(lease) == 0);
    ipcfs_lease_free(lease);
    CHECK(ipcfs_lease_take(channel, 0, &lease) == -EAGAIN);
}

/* On the topic `name`. */
static void subscriptions(const char* name) {
    ipcfs_subscribe_options options = IPCFS_SUBSCRIBE_OPTIONS_INIT;
    ipcfs_send_options urgent = IPCFS_SEND_OPTIONS_INIT;
    ipcfs_channel* topic = NULL;
    ipcfs_channel* follower = NULL;
    ipcfs_channel* lasting = NULL;
    ipcfs_message* message = NULL;
    ipcfs_lease* lease = NULL;

    CHECK(ipcfs_open(name, NULL, &topic) == 0);
    CHECK(ipcfs_subscribe(name, NULL, &follower) == 0);
    options.name = "pager";
    CHECK(ipcfs_subscribe(name, &options, &lasting) == -ENOENT && lasting == NULL);
    options.create = 1;
    options.filter = "colour blue\n";
    CHECK(ipcfs_subscribe(name, &options, &lasting) == -EINVAL);
    options.filter = "priority 192-255\n";
    CHECK(ipcfs_subscribe(name, &options, &lasting) == 0);
    CHECK(ipcfs_send(topic, "calm", 4, NULL) == 0);
    urgent.priority = 192;
    urgent.method = "disk";
    urgent.group = "all";
    CHECK(ipcfs_send(topic, "urgent", 6, &urgent) == 0);
    CHECK(ipcfs_receive(follower, -1, &message) == 0);
    CHECK(ipcfs_message_size(message) == 6);
    ipcfs_message_free(message);
    CHECK(ipcfs_receive(follower, -1, &message) == 0);
    ipcfs_message_free(message);
    CHECK(ipcfs_lease_take(lasting, -1, &lease) == 0);
    CHECK(ipcfs_message_size(ipcfs_lease_message(lease)) == 6);
    CHECK(ipcfs_lease_ack(lease) == 0);
    ipcfs_lease_free(lease);
    CHECK(ipcfs_receive(lasting, 0, &message) == -EAGAIN);
    ipcfs_close(lasting);
    ipcfs_close(follower);
    ipcfs_close(topic);
}

int main(int argc, char** argv) {
    ipcfs_open_options options = IPCFS_OPEN_OPTIONS_INIT;
    ipcfs_channel* channel = NULL;
    if (argc < 2) return 100;
    if (argc > 2 && strcmp(argv[2], "topic") == 0) {
        subscriptions(argv[1]);
        return failures;
    }
    options.pool_chunks = 1;
    if (ipcfs_open(argv[1], &options, &channel) != 0) {
        puts(ipcfs_last_error());
        return 100;
    }
    CHECK(strncmp(ipcfs_version(), "0.", 2) == 0);
    errors(channel);
    messages(channel);
    loans(channel, argc > 2);
    leases(channel);
    ipcfs_close(channel);
    return failures;
}
