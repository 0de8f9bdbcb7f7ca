# ctl and the xattrs: the settings of a channel, and what they do.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

# set LINES...: one write to ctl with all of them.
set_ctl() { put "$MNT/jobs/ctl" "$(printf '%s\n' "$@")"$'\n'; }
fill() { for ((i = 1; i <= $1; i++)); do echo "$i" >"$MNT/jobs/queue"; done; }

@test "ctl shows every setting with its default" {
    while read -r key expected; do
        equal "$key $(value "$key" "$MNT/jobs/ctl")" "$key $expected"
    done <<'END'
type queue
capacity 1000
bytes 100M
high-watermark 80
low-watermark 20
overflow block
schedule strict
ttl 0
timeout 5s
durable off
max-deliveries 5
lease 30s
batch off
retain 0
notify-rate 1000/s
END
    [ -n "$(value max-message "$MNT/jobs/ctl")" ]
}

@test "what ctl shows can be written back" {
    set_ctl "capacity 77" "timeout 250ms" "bytes 64K" "schedule fair"
    cat "$MNT/jobs/ctl" >"$BATS_TEST_TMPDIR/settings"
    mkdir "$MNT/other"
    dd if="$BATS_TEST_TMPDIR/settings" of="$MNT/other/ctl" bs=64K conv=notrunc status=none
    equal "$(cat "$MNT/other/ctl")" "$(cat "$BATS_TEST_TMPDIR/settings")"
    equal "$(value capacity "$MNT/other/ctl")" 77
}

@test "a write to ctl is applied whole or not at all" {
    cp "$MNT/jobs/ctl" "$BATS_TEST_TMPDIR/before"
    fails_with "Invalid argument" set_ctl "capacity 5" "no-such-setting 1" "ttl 1s"
    equal "$(cat "$MNT/jobs/ctl")" "$(cat "$BATS_TEST_TMPDIR/before")"
    echo x >"$MNT/jobs/queue"
    fails_with "Invalid argument" set_ctl "purge" "capacity many"
    equal "$(value depth "$MNT/jobs/status")" 1
    set_ctl "capacity 5" "ttl 1h"
    equal "$(value capacity "$MNT/jobs/ctl") $(value ttl "$MNT/jobs/ctl")" "5 1h"
}

@test "the reason of a refusal is in status and in the log" {
    fails_with "Invalid argument" set_ctl "capacity 5" "no-such-setting 1"
    grep last-error "$MNT/jobs/status" | grep -q no-such-setting
    wait_until grep -q no-such-setting "$DAEMON_DIR/log"
}

@test "bad values are refused" {
    local line
    for line in "capacity 0" "capacity -1" "capacity x" "capacity" "bytes 10X" "max-message 1044481" \
        "max-message 0" "high-watermark 101" "low-watermark 90" "overflow sometimes" \
        "schedule lottery" "ttl soon" "ttl 5" "timeout -1s" "notify-rate 0" "purged" \
        "durable on" "lease 0" "batch 0 5ms" "max-deliveries 0" "retain -1" "retries 3" "pause soon"; do
        fails_with "Invalid argument" set_ctl "$line"
    done
    equal "$(value capacity "$MNT/jobs/ctl")" 1000
}

@test "types that do not exist are refused" {
    for type in service nonsense; do
        fails_with "Invalid argument" set_ctl "type $type"
    done
    equal "$(value type "$MNT/jobs/ctl")" queue
}

@test "the type changes while the channel is empty and unopened" {
    set_ctl "type sync"
    equal "$(value type "$MNT/jobs/ctl")" sync
    set_ctl "type queue"
    exec 7<"$MNT/jobs/queue"
    fails_with "Device or resource busy" set_ctl "type sync"
    exec 7<&-
    wait_until set_ctl "type sync" "type queue"  # the kernel tells of a close when it likes
    echo x >"$MNT/jobs/queue"
    fails_with "Device or resource busy" set_ctl "type sync"
    equal "$(cat "$MNT/jobs/queue")" x
    wait_until set_ctl "type sync"
}

@test "xattrs read and write the settings" {
    equal "$(getfattr --only-values -n user.ipcfs.capacity "$MNT/jobs")" 1000
    setfattr -n user.ipcfs.capacity -v 12 "$MNT/jobs"
    equal "$(value capacity "$MNT/jobs/ctl")" 12
    fails_with "Invalid argument" setfattr -n user.ipcfs.capacity -v many "$MNT/jobs"
    run setfattr -n user.ipcfs.no-such-setting -v 1 "$MNT/jobs"
    [ "$status" -ne 0 ]
    equal "$(value capacity "$MNT/jobs/ctl")" 12
}

@test "other user xattrs are kept as they are" {
    setfattr -n user.owner -v "the build team" "$MNT/jobs"
    equal "$(getfattr --only-values -n user.owner "$MNT/jobs")" "the build team"
    getfattr -d "$MNT/jobs" 2>/dev/null | grep -q '^user.owner='
    mv "$MNT/jobs" "$MNT/work"
    equal "$(getfattr --only-values -n user.owner "$MNT/work")" "the build team"
    setfattr -x user.owner "$MNT/work"
    fails_with "No such attribute" getfattr --only-values -n user.owner "$MNT/work"
}

@test "overflow reject" {
    set_ctl "capacity 10" "overflow reject"
    fill 8
    fails_with "No buffer space available" put "$MNT/jobs/queue" 9
    equal "$(cat "$MNT/jobs/queue")" "$(seq 8)"
}

@test "overflow drop-oldest" {
    set_ctl "capacity 10" "overflow drop-oldest"
    fill 20
    equal "$(cat "$MNT/jobs/queue")" "$(seq 13 20)"
}

@test "overflow drop-newest" {
    set_ctl "capacity 10" "overflow drop-newest"
    fill 20
    equal "$(cat "$MNT/jobs/queue")" "$(seq 8)"
}

@test "messages older than the ttl are gone" {
    echo stays >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" stays
    set_ctl "ttl 50ms"
    fill 3
    wait_until status_is jobs depth 0
    equal "$(cat "$MNT/jobs/queue")" ""
}

@test "purge empties the channel" {
    fill 5
    set_ctl purge
    equal "$(value depth "$MNT/jobs/status")" 0
    equal "$(cat "$MNT/jobs/queue")" ""
}

@test "pause and resume hold deliveries" {
    fill 1
    set_ctl pause
    equal "$(value state "$MNT/jobs/status" | cut -d' ' -f1)" paused
    bg cat "$MNT/jobs/next" >"$BATS_TEST_TMPDIR/out"
    wait_until status_is jobs waiting 1
    is_running "$BG_PID"
    set_ctl resume
    wait "$BG_PID"
    equal "$(cat "$BATS_TEST_TMPDIR/out")" 1
    equal "$(value state "$MNT/jobs/status" | cut -d' ' -f1)" ok
}

@test "a pause with a duration ends by itself" {
    set_ctl "pause 100ms"
    timeout 10 bash -c 'echo after >"$1"' bash "$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" after
}

@test "status says how the channel is" {
    fill 3
    while read -r key expected; do
        equal "$key $(value "$key" "$MNT/jobs/status")" "$key $expected"
    done <<'END'
depth 3
bytes 6
readers 0
writers 0
waiting 0
END
    [[ $(value state "$MNT/jobs/status") == ok* ]]
    grep -q oldest "$MNT/jobs/status"
    exec 7<"$MNT/jobs/queue"
    equal "$(value readers "$MNT/jobs/status")" 1
    exec 7<&-
}
