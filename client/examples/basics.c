/*
 * The C interface: sends a message, a large one by loan, and receives both.
 *
 *     basics CHANNEL        build: cc basics.c $(pkg-config --cflags --libs ipcfs-c)
 */
#include <stdio.h>
#include <string.h>

#include <ipcfs/ipcfs.h>

static int fail(const char* what) {
    fprintf(stderr, "%s: %s\n", what, ipcfs_last_error());
    return 1;
}

int main(int argc, char** argv) {
    const size_t large = 4 << 20;
    ipcfs_open_options options = IPCFS_OPEN_OPTIONS_INIT;
    ipcfs_channel* channel;
    ipcfs_loan* loan;
    int i;

    if (argc < 2) return fputs("usage: basics CHANNEL\n", stderr), 2;
    options.create = 1;
    if (ipcfs_open(argv[1], &options, &channel) != 0) return fail("open");

    if (ipcfs_send(channel, "hello", 5, NULL) != 0) return fail("send");
    if (ipcfs_loan_take(channel, large, -1, &loan) != 0) return fail("loan");
    memset(ipcfs_loan_data(loan), 'x', large);
    if (ipcfs_send_loan(channel, loan, NULL) != 0) return fail("send loan");

    for (i = 0; i < 2; ++i) {
        ipcfs_message* message;
        const void* data;
        size_t size;
        if (ipcfs_receive(channel, 1000000000, &message) != 0) return fail("receive");
        if (ipcfs_message_map(message, &data, &size) != 0) return fail("map");
        printf("%llu bytes from process %u: %.5s\n", (unsigned long long)size,
               ipcfs_message_header(message)->sender_pid, (const char*)data);
        ipcfs_message_free(message);
    }
    ipcfs_close(channel);
    return 0;
}
