# What every .bats file loads: a daemon of its own for each test, users, conditions with deadlines.
#
#   setup() { start_daemon; }     $MNT is the mount, $IPCFS the command
#   teardown() { clean_up; }      also after a failure: ends this test's jobs, daemon and mount
#
# Background jobs are started with `bg`, so that they are known and hold none of bats' descriptors.
# Files run in parallel; tests/bats/run gives each a mount namespace of its own.

export LC_ALL=C
IPCFS=${IPCFS:-ipcfs}
bats_require_minimum_version 1.5.0 2>/dev/null || true

# wait_until COMMAND...: runs it until it succeeds; fails after WAIT_SECONDS (20).
wait_until() {
    local end=$((SECONDS + ${WAIT_SECONDS:-20}))
    until "$@" >/dev/null 2>&1; do
        if ((SECONDS >= end)); then
            echo "waited in vain for: $*" >&2
            return 1
        fi
        pause 0.01
    done
}

# These start no process: they are called again and again, by every test.
pause() {
    [ -n "${PAUSE_FD:-}" ] || exec {PAUSE_FD}<> <(:)
    read -rt "$1" -u "$PAUSE_FD" || true
}
# contains FILE TEXT
contains() {
    local -a text
    mapfile -d '' -t text <"$1" && [[ ${text[0]-} == *"$2"* ]]
} 2>/dev/null
is_mounted() { contains /proc/mounts " $MNT fuse"; }
is_running() { kill -0 "$1" 2>/dev/null && ! contains "/proc/$1/status" $'\nState:\tZ'; }
is_gone() { ! is_running "$1"; }
# It answers, or is gone. Opening asks the daemon: stat does not, the kernel answers it from what it
# remembers, also of a mount whose daemon is dead.
mounted_or_dead() {
    { is_mounted && answers; } || is_gone "$DAEMON_PID"
}
answers() {
    case ${DAEMON_USER:-0} in
    0) contains "$MNT/kern/ipc/version" pid ;;
    *) as_user "$DAEMON_USER" cat "$MNT/kern/ipc/version" ;;
    esac
}

# start_daemon [OPTION...]: starts the daemon on a new $MNT, or on the one there is, and waits for it.
# DAEMON_USER is the uid it runs as (0).
start_daemon() {
    if [ -z "${DAEMON_DIR:-}" ]; then
        chmod a+x "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR"/test "$BATS_TEST_TMPDIR" 2>/dev/null || true
        DAEMON_DIR=$(mktemp -d "$BATS_TEST_TMPDIR/ipcfs.XXXXXX")
        chmod 755 "$DAEMON_DIR"
        MNT=$DAEMON_DIR/mnt
        mkdir "$MNT"
        chown "${DAEMON_USER:-0}" "$DAEMON_DIR" "$MNT"
        export MNT
    fi
    local as=()
    if [ "${DAEMON_USER:-0}" != 0 ]; then
        as=(setpriv "--reuid=$DAEMON_USER" "--regid=$DAEMON_USER" --clear-groups --)
    fi
    "${as[@]}" "$IPCFS_TEST_DAEMON" --foreground --mount "$MNT" --state "$DAEMON_DIR/state" \
        --transport "${IPCFS_TEST_TRANSPORT:-auto}" --log-target file \
        --log-file "$DAEMON_DIR/log" "$@" >>"$DAEMON_DIR/output" 2>&1 3>&- &
    DAEMON_PID=$!
    wait_until mounted_or_dead
    if is_gone "$DAEMON_PID"; then
        echo "the daemon did not start:" >&2
        cat "$DAEMON_DIR/output" "$DAEMON_DIR/log" >&2
        return 1
    fi
}

# Asks the daemon to end and leaves its exit code in DAEMON_STATUS; kills and unmounts if it must.
stop_daemon() {
    DAEMON_STATUS=0
    if [ -n "${DAEMON_PID:-}" ]; then
        kill -TERM "$DAEMON_PID" 2>/dev/null || true
        if ! WAIT_SECONDS=10 wait_until is_gone "$DAEMON_PID"; then
            kill -KILL "$DAEMON_PID"
            umount -f "$MNT" 2>/dev/null || true # frees whoever waits for it
        fi
        wait "$DAEMON_PID" || DAEMON_STATUS=$?
        DAEMON_PID=
    fi
    if is_mounted; then umount -f "$MNT" 2>/dev/null || umount -l "$MNT"; fi
    return 0
}

# bg COMMAND...: runs it in the background; its pid is in BG_PID.
bg() {
    "$@" 3>&- &
    BG_PID=$!
    BG_PIDS+=("$BG_PID")
}

# For teardown.
clean_up() {
    local pid
    for pid in "${BG_PIDS[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true
    done
    BG_PIDS=()
    [ -n "${DAEMON_DIR:-}" ] || return 0
    stop_daemon
    if [ -z "${BATS_TEST_COMPLETED:-}" ]; then
        echo "the daemon's log, and what commands put into err:"
        tail -n 40 "$DAEMON_DIR/output" "$DAEMON_DIR/log" "$BATS_TEST_TMPDIR"/err 2>/dev/null || true
        return 0
    fi
    if [ "$DAEMON_STATUS" != "${DAEMON_STATUS_EXPECTED:-0}" ]; then
        echo "the daemon's exit code is $DAEMON_STATUS"
        tail -n 40 "$DAEMON_DIR/output" "$DAEMON_DIR/log" 2>/dev/null || true
        return 1
    fi
}

# as_user UID COMMAND...: that user, the group of the same number, no other groups.
as_user() {
    local uid=$1
    shift
    setpriv "--reuid=$uid" "--regid=$uid" --clear-groups -- "$@"
}

# sh_as UID SCRIPT [ARGUMENT...]: a bash of that user; redirections are done by it.
sh_as() {
    local uid=$1 script=$2
    shift 2
    as_user "$uid" bash -c "$script" bash "$@"
}

# fails_with TEXT COMMAND...: it fails and says TEXT, as "Permission denied".
fails_with() {
    local text=$1
    shift
    run "$@"
    if [ "$status" = 0 ] || [[ $output != *"$text"* ]]; then
        echo "expected to fail with '$text': $*"
        echo "exit code $status: $output"
        return 1
    fi
}

# equal ACTUAL EXPECTED
equal() {
    [ "$1" = "$2" ] && return 0
    printf 'got:      %q\nexpected: %q\n' "$1" "$2"
    return 1
}

# put FILE TEXT: one write; works as a command for `run` and `fails_with`.
put() { env printf '%s' "$2" >"$1"; }

# value KEY FILE: of a file of `key value` lines.
value() { awk -v key="$1" '$1 == key { $1 = ""; sub(/^ /, ""); print; exit }' "$2"; }
status_is() { [ "$(value "$2" "$MNT/$1/status")" = "$3" ]; }

# column TABLE NAME [KEY]: that column of each row, or of the row whose first column is KEY.
column() {
    awk -F '\t' -v name="$2" -v key="${3-}" -v keyed="$#" '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) at = i; next }
        at && (keyed < 3 || $1 == key) { print $at }' "$1"
}

# frame BODY: a frame without a checksum, of normal priority.
frame() {
    python3 -c '
import struct, sys
body = sys.argv[1].encode()
sys.stdout.buffer.write(struct.pack("<IBBHHBBIQQQQQIIIIQQQ", 0x46435049, 1, 2, 96, 1, 128, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len(body)) + body)' "$1"
}
