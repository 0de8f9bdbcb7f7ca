# Starting, ending, dying and starting again.
load helper
teardown() { clean_up; }

ends_within() { WAIT_SECONDS=$1 wait_until is_gone "$DAEMON_PID"; }

@test "SIGTERM ends waiting readers, unmounts and exits with 0" {
    start_daemon
    mkdir "$MNT/jobs"
    local readers=()
    for i in {1..20}; do
        bg cat "$MNT/jobs/next" >/dev/null 2>&1
        readers+=("$BG_PID")
    done
    wait_until status_is jobs waiting 20
    echo pause >"$MNT/jobs/ctl"
    bg bash -c 'echo held >"$1"' bash "$MNT/jobs/queue" 2>/dev/null
    wait_until status_is jobs waiting 21
    kill -TERM "$DAEMON_PID"
    ends_within 3
    wait "$DAEMON_PID"
    ! is_mounted
    for pid in "${readers[@]}" "$BG_PID"; do wait_until is_gone "$pid"; done
}

@test "SIGINT does the same" {
    start_daemon
    kill -INT "$DAEMON_PID"
    ends_within 3
    wait "$DAEMON_PID"
    ! is_mounted
}

@test "it ends although messages are queued, files open and a directory in use" {
    start_daemon
    mkdir "$MNT/jobs"
    echo x >"$MNT/jobs/queue"
    exec 7<"$MNT/jobs/queue"
    bg bash -c 'cd "$1" && exec sleep 1000' bash "$MNT/jobs"
    in_there() { [ "$(readlink "/proc/$BG_PID/cwd")" = "$MNT/jobs" ]; }
    wait_until in_there
    kill -TERM "$DAEMON_PID"
    ends_within 3
    wait "$DAEMON_PID"
    exec 7<&-
}

@test "a second daemon on the same mount point is refused" {
    start_daemon
    run "$IPCFS_TEST_DAEMON" --foreground --mount "$MNT" --state "$DAEMON_DIR/state" --log-target stderr
    equal "$status" 3
    [ -n "$output" ]
    mkdir "$MNT/still-here"
    kill -0 "$DAEMON_PID"
}

@test "a daemon killed with -9 ends its readers, and the next one cleans up its mount" {
    start_daemon
    mkdir "$MNT/jobs"
    bg cat "$MNT/jobs/next" >/dev/null 2>&1
    local reader=$BG_PID
    wait_until status_is jobs waiting 1
    kill -KILL "$DAEMON_PID"
    wait "$DAEMON_PID" || true
    wait_until is_gone "$reader"
    fails_with "not connected" ls "$MNT"
    start_daemon
    mkdir "$MNT/jobs"
    echo again >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" again
    equal "$(grep -c " $MNT fuse" /proc/mounts)" 1
}

@test "umount by somebody else ends the daemon" {
    start_daemon
    wait_until grep -q "ready: " "$DAEMON_DIR/log" # it answers before its rings are complete
    umount "$MNT"
    ends_within 5
}

@test "SIGHUP reloads what can be reloaded" {
    echo '[channel]
capacity = 11' >"$BATS_TEST_TMPDIR/ipcfs.toml"
    start_daemon --config "$BATS_TEST_TMPDIR/ipcfs.toml"
    mkdir "$MNT/first"
    equal "$(value capacity "$MNT/first/ctl")" 11
    echo '[channel]
capacity = 22' >"$BATS_TEST_TMPDIR/ipcfs.toml"
    kill -HUP "$DAEMON_PID"
    reloaded() { mkdir "$MNT/probe" && [ "$(value capacity "$MNT/probe/ctl")" = 22 ]; local is=$?; rmdir "$MNT/probe"; return $is; }
    wait_until reloaded
    equal "$(value capacity "$MNT/first/ctl")" 11
    echo 'nonsense = 1' >"$BATS_TEST_TMPDIR/ipcfs.toml"
    kill -HUP "$DAEMON_PID"
    wait_until grep -q nonsense "$DAEMON_DIR/log" # refused, said, and the old one stays
    mkdir "$MNT/third"
    equal "$(value capacity "$MNT/third/ctl")" 22
}

@test "--check-config says ok, or every error with its line and column" {
    run "$IPCFS_TEST_DAEMON" --check-config --config /work/no/such/file
    equal "$status" 2
    printf '[channel]\ncapacity = 5\n' >"$BATS_TEST_TMPDIR/good.toml"
    run "$IPCFS_TEST_DAEMON" --check-config --config "$BATS_TEST_TMPDIR/good.toml"
    equal "$status" 0
    [[ $output == *ok* ]]
    printf '[channel]\ncapacity = "many"\n[fuse]\nwings = 2\n' >"$BATS_TEST_TMPDIR/bad.toml"
    run "$IPCFS_TEST_DAEMON" --check-config --config "$BATS_TEST_TMPDIR/bad.toml"
    equal "$status" 2
    [[ $output == *"bad.toml:2:"*capacity* ]]
    [[ $output == *"bad.toml:4:"*wings* ]]
}

@test "a bad option or configuration is refused at start" {
    run "$IPCFS_TEST_DAEMON" --no-such-option
    equal "$status" 2
    printf 'wings = 2\n' >"$BATS_TEST_TMPDIR/bad.toml"
    run "$IPCFS_TEST_DAEMON" --foreground --mount "$BATS_TEST_TMPDIR" --config "$BATS_TEST_TMPDIR/bad.toml"
    equal "$status" 2
}

@test "a mount point that is not there is made or named" {
    run timeout 10 "$IPCFS_TEST_DAEMON" --foreground --mount /proc/no/such/place --state "$BATS_TEST_TMPDIR/state" --log-target stderr
    equal "$status" 1
    [[ $output == *"/proc/no"* ]]
}

@test "in the background the mount is there when the command returns" {
    MNT=$BATS_TEST_TMPDIR/mnt
    mkdir "$MNT"
    "$IPCFS_TEST_DAEMON" --mount "$MNT" --state "$BATS_TEST_TMPDIR/state" \
        --transport "${IPCFS_TEST_TRANSPORT:-auto}" --log-target file \
        --log-file "$BATS_TEST_TMPDIR/log" 3>&-
    is_mounted
    mkdir "$MNT/jobs"
    echo hi >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" hi
    umount "$MNT"
    unused() { ! pgrep -f -- "--mount $MNT " >/dev/null; }
    wait_until unused
}

@test "without privilege it serves one user's own tree" {
    local uid=1000
    as_user $uid test -r /dev/fuse -a -w /dev/fuse || {
        [ -n "${IPCFS_TEST_PRIVATE_MOUNTS:-}" ] || skip "/dev/fuse is not for user $uid"
        # As on other machines, seen only in this test's mount namespace.
        mknod "$BATS_TEST_TMPDIR/fuse" c 10 229
        chmod 666 "$BATS_TEST_TMPDIR/fuse"
        mount --bind "$BATS_TEST_TMPDIR/fuse" /dev/fuse
        as_user $uid test -r /dev/fuse -a -w /dev/fuse || skip "/dev/fuse is not for user $uid"
    }
    [ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not setuid root"
    DAEMON_USER=$uid start_daemon
    as_user $uid mkdir "$MNT/jobs"
    sh_as $uid 'echo mine >"$1"' "$MNT/jobs/queue"
    equal "$(as_user $uid cat "$MNT/jobs/queue")" mine
    equal "$(as_user $uid stat -c %u "$MNT/jobs/queue")" $uid
    fails_with "Permission denied" as_user 1001 ls "$MNT/jobs"
    kill -TERM "$DAEMON_PID"
    ends_within 3
    wait "$DAEMON_PID"
    ! is_mounted
}
