# kern/ipc: what the daemon says of itself, and what of it can be changed while it runs.
load helper
setup() { start_daemon; config=$MNT/kern/ipc/config; }
teardown() { clean_up; }

@test "version names the program, libfuse, the kernel and the transport" {
    grep -q '^ipcfs [0-9]' "$MNT/kern/ipc/version"
    grep -q '^libfuse 3\.' "$MNT/kern/ipc/version"
    grep -q "^kernel $(uname -r)\$" "$MNT/kern/ipc/version"
    grep -qE '^transport (uring|classic)$' "$MNT/kern/ipc/version"
}

@test "config is the effective configuration, as a file the daemon takes" {
    cat "$config" >"$BATS_TEST_TMPDIR/shown.toml"
    "$IPCFS_TEST_DAEMON" --check-config --config "$BATS_TEST_TMPDIR/shown.toml"
}

@test "the log level changes while it runs" {
    echo 'log.level debug' >"$config"
    grep -qE '^level *= *.debug' "$config"
}

@test "a limit given while it runs holds at once, by name or uid" {
    chmod 1777 "$MNT"
    echo 'limits.user.65534.channels 1' >"$config"
    as_user 65534 mkdir "$MNT/one"
    run as_user 65534 mkdir "$MNT/two"
    [ "$status" -ne 0 ]
    [[ $output == *"Disk quota exceeded"* ]]
    echo "limits.user.$(id -nu 65534).channels 2" >"$config"
    as_user 65534 mkdir "$MNT/two"
}

@test "what takes a restart, or is no key, is refused whole" {
    before=$(cat "$config")
    # Not the shell's own printf: it writes line by line.
    for line in 'fuse.queue-depth 64' 'no.such.key 1' 'limits.messages many' 'log.level'; do
        run bash -c '/usr/bin/printf "limits.messages 5\n%s\n" "$1" >"$2"' - "$line" "$config"
        [ "$status" -ne 0 ]
    done
    [ "$(cat "$config")" = "$before" ]
}

@test "only the daemon's user may write it" {
    run as_user 65534 bash -c 'echo "log.level debug" >"$1"' - "$config"
    [ "$status" -ne 0 ]
    as_user 65534 cat "$config" >/dev/null
}
