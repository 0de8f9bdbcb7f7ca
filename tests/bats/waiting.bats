# What waits, for how long, and what ends it.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

@test "next waits for a message" {
    bg cat "$MNT/jobs/next" >"$BATS_TEST_TMPDIR/out"
    wait_until status_is jobs waiting 1
    echo here >"$MNT/jobs/queue"
    wait "$BG_PID"
    equal "$(cat "$BATS_TEST_TMPDIR/out")" here
}

@test "waiting readers are served first come, first served" {
    for i in 1 2 3 4 5; do
        bg cat "$MNT/jobs/next" >"$BATS_TEST_TMPDIR/out$i"
        wait_until status_is jobs waiting "$i"
    done
    for i in 1 2 3 4 5; do echo "$i" >"$MNT/jobs/queue"; done
    for i in 1 2 3 4 5; do
        wait_until grep -qx "$i" "$BATS_TEST_TMPDIR/out$i"
    done
}

@test "timeout and Ctrl-C end a waiting reader, which took nothing" {
    fails_with "" timeout 0.1 cat "$MNT/jobs/next"
    equal "$status" 124
    bg bash -c 'exec cat "$1"' bash "$MNT/jobs/next"
    wait_until status_is jobs waiting 1
    kill -TERM "$BG_PID"
    wait_until is_gone "$BG_PID"
    wait_until status_is jobs waiting 0
    echo kept >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" kept
}

@test "kill -9 of a waiting reader costs nobody a message" {
    local pids=()
    for i in {1..20}; do
        bg cat "$MNT/jobs/next" >/dev/null
        pids+=("$BG_PID")
    done
    wait_until status_is jobs waiting 20
    kill -KILL "${pids[@]}"
    for pid in "${pids[@]}"; do wait_until is_gone "$pid"; done
    for i in {1..20}; do echo "$i" >"$MNT/jobs/queue"; done
    equal "$(cat "$MNT/jobs/queue")" "$(seq 20)"
}

@test "a stopped reader keeps nobody else waiting" {
    bg cat "$MNT/jobs/next" >"$BATS_TEST_TMPDIR/out"
    wait_until status_is jobs waiting 1
    kill -STOP "$BG_PID"
    echo one >"$MNT/jobs/queue"
    echo two >"$MNT/jobs/queue"
    timeout 10 cat "$MNT/jobs/next" >"$BATS_TEST_TMPDIR/other"
    kill -CONT "$BG_PID"
    wait_until is_gone "$BG_PID"
    equal "$(sort "$BATS_TEST_TMPDIR/out" "$BATS_TEST_TMPDIR/other")" $'one\ntwo'
}

@test "echo waits at open while the channel is paused" {
    echo pause >"$MNT/jobs/ctl"
    bg bash -c 'echo held >"$1"' bash "$MNT/jobs/queue"
    wait_until status_is jobs waiting 1
    is_running "$BG_PID"
    equal "$(value depth "$MNT/jobs/status")" 0
    echo resume >"$MNT/jobs/ctl"
    wait "$BG_PID"
    equal "$(cat "$MNT/jobs/queue")" held
}

@test "echo waits at open while the channel is full, until the low mark" {
    echo "capacity 10" >"$MNT/jobs/ctl"
    for i in {1..8}; do echo "$i" >"$MNT/jobs/queue"; done
    bg bash -c 'echo 9 >"$1"' bash "$MNT/jobs/queue"
    wait_until status_is jobs waiting 1
    for i in {1..5}; do cat "$MNT/jobs/next" >/dev/null; done
    is_running "$BG_PID"
    cat "$MNT/jobs/next" >/dev/null
    wait "$BG_PID"
    equal "$(cat "$MNT/jobs/queue")" $'7\n8\n9'
}

@test "a writer held at open can be killed" {
    echo pause >"$MNT/jobs/ctl"
    bg bash -c 'echo never >"$1"' bash "$MNT/jobs/queue"
    wait_until status_is jobs waiting 1
    kill -KILL "$BG_PID"
    wait_until is_gone "$BG_PID"
    wait_until status_is jobs waiting 0
    echo resume >"$MNT/jobs/ctl"
    equal "$(cat "$MNT/jobs/queue")" ""
}

@test "on an open file a write waits only for the timeout" {
    env printf 'capacity 10\ntimeout 100ms\n' >"$MNT/jobs/ctl"
    exec 7>"$MNT/jobs/queue"
    for i in {1..8}; do echo "$i" >&7; done
    run bash -c 'echo nine >&7'
    exec 7>&-
    [[ $output == *"Resource temporarily unavailable"* ]]
    equal "$(cat "$MNT/jobs/queue")" "$(seq 8)"
}

@test "with O_NONBLOCK nothing waits" {
    echo "capacity 10" >"$MNT/jobs/ctl"
    python3 - "$MNT/jobs" <<'PY'
import errno, os, sys
jobs = sys.argv[1]
def refused(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
for name in "next", "stream", "framed/next", "framed/stream":
    assert refused(os.read, os.open(f"{jobs}/{name}", os.O_RDONLY | os.O_NONBLOCK), 100) == errno.EAGAIN, name
out = os.open(f"{jobs}/queue", os.O_WRONLY | os.O_NONBLOCK)
for i in range(8):
    os.write(out, b"x")
assert refused(os.write, out, b"x") == errno.EAGAIN
another = os.open(f"{jobs}/queue", os.O_WRONLY | os.O_NONBLOCK)  # does not wait either
assert refused(os.write, another, b"x") == errno.EAGAIN
assert os.read(os.open(f"{jobs}/next", os.O_RDONLY | os.O_NONBLOCK), 100) == b"x"
PY
}

@test "critical messages use the reserve of a full channel" {
    echo "capacity 10" >"$MNT/jobs/ctl"
    for i in {1..8}; do echo "$i" >"$MNT/jobs/queue"; done
    timeout 10 bash -c 'echo alarm >"$1"' bash "$MNT/jobs/priority/critical"
    equal "$(cat "$MNT/jobs/next")" alarm
}

@test "on type sync echo returns when its message was taken" {
    echo "type sync" >"$MNT/jobs/ctl"
    bg bash -c 'echo meet >"$1"' bash "$MNT/jobs/queue"
    wait_until status_is jobs depth 1
    is_running "$BG_PID"
    equal "$(cat "$MNT/jobs/next")" meet
    wait "$BG_PID"
}

@test "on type sync a message that nobody takes is withdrawn" {
    env printf 'type sync\ntimeout 100ms\n' >"$MNT/jobs/ctl"
    fails_with "Connection timed out" put "$MNT/jobs/queue" nobody
    equal "$(value depth "$MNT/jobs/status")" 0
}

@test "rmdir ends waiting readers with the end of the file and writers with a broken pipe" {
    bg cat "$MNT/jobs/stream" >"$BATS_TEST_TMPDIR/out"
    local reader=$BG_PID
    wait_until status_is jobs waiting 1
    exec 7>"$MNT/jobs/queue"
    rmdir "$MNT/jobs"
    wait "$reader"
    equal "$(cat "$BATS_TEST_TMPDIR/out")" ""
    run bash -c 'trap "" PIPE; env printf late >&7'
    exec 7>&-
    [[ $output == *"Broken pipe"* ]]
}
