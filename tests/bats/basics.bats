# The tree as a shell user meets it: channels are directories, messages are writes.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

@test "echo puts a message in and cat takes it out" {
    echo build >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" build
    equal "$(cat "$MNT/jobs/queue")" ""
}

@test "messages come in the order they were written" {
    for i in {1..20}; do echo "$i" >"$MNT/jobs/queue"; done
    equal "$(cat "$MNT/jobs/queue")" "$(seq 20)"
}

@test "appending with >> is writing" {
    echo one >>"$MNT/jobs/queue"
    echo two >>"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" $'one\ntwo'
}

@test "a redirection without output queues nothing" {
    : >"$MNT/jobs/queue"
    equal "$(value depth "$MNT/jobs/status")" 0
}

@test "any bytes go through, NUL included" {
    head -c 100000 /dev/urandom >"$BATS_TEST_TMPDIR/random"
    dd if="$BATS_TEST_TMPDIR/random" of="$MNT/jobs/queue" bs=1M conv=notrunc status=none
    cmp "$BATS_TEST_TMPDIR/random" "$MNT/jobs/queue"
}

@test "tee sends to several channels at once" {
    mkdir "$MNT/copy"
    echo both | tee "$MNT/jobs/queue" >"$MNT/copy/queue"
    equal "$(cat "$MNT/jobs/queue" "$MNT/copy/queue")" $'both\nboth'
}

@test "a channel shows the files of its type and no others" {
    equal "$(ls "$MNT/jobs" | sort)" "$(printf '%s\n' ctl dead framed lease next notify payload peek priority put queue share stats status stream)"
    equal "$(ls "$MNT/jobs/priority" | sort)" "$(printf '%s\n' critical high low normal)"
    equal "$(ls "$MNT/jobs/framed" | sort)" "$(printf '%s\n' lease next put queue stream)"
    for name in filter call serve subs instances; do
        [ ! -e "$MNT/jobs/$name" ]
    done
}

@test "ls, find and stat work all over the tree" {
    ls -lR "$MNT" >/dev/null
    find "$MNT" -name queue | grep -q "$MNT/jobs/queue"
    equal "$(stat -c '%s %F' "$MNT/jobs/queue")" "0 regular empty file"
    echo x >"$MNT/jobs/queue"
    equal "$(stat -c %s "$MNT/jobs/queue")" 0
    equal "$(stat -c %a "$MNT")" 1777
    equal "$(findmnt -n -o FSTYPE "$MNT")" fuse.ipcfs
    df "$MNT" >/dev/null
}

@test "mkdir -p nests channels and rmdir takes them one by one" {
    mkdir -p "$MNT/a/b/c"
    echo deep >"$MNT/a/b/c/queue"
    fails_with "not empty" rmdir "$MNT/a"
    fails_with "not empty" rmdir "$MNT/a/b/c"
    equal "$(cat "$MNT/a/b/c/queue")" deep
    rmdir -p "$MNT/a/b/c" 2>/dev/null || true  # -p goes on to the mount point, which is busy
    [ ! -e "$MNT/a" ]
}

@test "rmdir refuses while messages wait, until they are purged" {
    echo x >"$MNT/jobs/queue"
    fails_with "Directory not empty" rmdir "$MNT/jobs"
    echo purge >"$MNT/jobs/ctl"
    rmdir "$MNT/jobs"
    [ ! -e "$MNT/jobs" ]
}

@test "mv renames a channel, and open files follow it" {
    echo before >"$MNT/jobs/queue"
    exec 7>"$MNT/jobs/queue" 8<"$MNT/jobs/queue"
    mv "$MNT/jobs" "$MNT/work"
    echo after >&7
    equal "$(cat <&8)" $'before\nafter'
    exec 7>&- 8<&-
    [ ! -e "$MNT/jobs" ]
    ls "$MNT/work/queue"
}

@test "mv into another channel nests it" {
    mkdir "$MNT/shelf"
    echo x >"$MNT/jobs/queue"
    mv "$MNT/jobs" "$MNT/shelf"
    equal "$(cat "$MNT/shelf/jobs/queue")" x
}

@test "nothing but channels can be made, and files cannot be removed" {
    fails_with "Operation not permitted" touch "$MNT/jobs/new"
    fails_with "Operation not permitted" touch "$MNT/new"
    fails_with "Operation not permitted" mkfifo "$MNT/jobs/fifo"
    fails_with "Operation not permitted" mknod "$MNT/jobs/node" c 1 3
    fails_with "Operation not permitted" ln -s target "$MNT/jobs/link"
    fails_with "Operation not permitted" ln "$MNT/jobs/queue" "$MNT/jobs/hard"
    fails_with "Operation not permitted" rm "$MNT/jobs/queue"
    fails_with "Operation not permitted" rm "$MNT/jobs/priority/high"
    fails_with "Operation not permitted" rmdir "$MNT/jobs/priority"
    fails_with "Operation not permitted" mv "$MNT/jobs/queue" "$MNT/jobs/line"
    ls "$MNT/jobs/queue"
}

@test "the names of channel files are reserved, also those of other types" {
    for name in queue next stream put lease peek priority dead payload subs call serve instances \
        framed share notify ctl status stats; do
        fails_with "File exists" mkdir "$MNT/jobs/$name"
    done
}

@test "any other name will do" {
    local name
    for name in "two words" $'new\nline' $'tab\there' 'back\slash' '-n' '*' 'größe' "$(printf 'n%.0s' {1..255})"; do
        mkdir -- "$MNT/$name"
        echo x >"$MNT/$name/queue"
        equal "$(cat -- "$MNT/$name/queue")" x
        rmdir -- "$MNT/$name"
    done
    fails_with "File name too long" mkdir "$MNT/$(printf 'n%.0s' {1..256})"
}

@test "the system's own files are there and stay" {
    ls "$MNT/kern/ipc/stats/messages" "$MNT/kern/ipc/stats/channels" \
        "$MNT/kern/ipc/stats/notifications" "$MNT/kern/ipc/stats/resources"
    grep -q . "$MNT/kern/ipc/version"
    grep -q capacity "$MNT/kern/ipc/config"
    run mkdir "$MNT/kern/mine"
    [ "$status" -ne 0 ]
    run mkdir "$MNT/kern/ipc/mine"
    [ "$status" -ne 0 ]
    run rmdir "$MNT/kern/ipc/stats"
    [ "$status" -ne 0 ]
    fails_with "File exists" mkdir "$MNT/kern"
}

@test "peek lists what is queued and consumes nothing" {
    echo one >"$MNT/jobs/queue"
    echo two >"$MNT/jobs/priority/high"
    equal "$(wc -l <"$MNT/jobs/peek")" 3
    equal "$(wc -l <"$MNT/jobs/peek")" 3
    equal "$(cat "$MNT/jobs/queue")" $'two\none'
}

@test "a message that is too long is refused whole" {
    fails_with "Message too long" dd if=/dev/zero of="$MNT/jobs/queue" bs=1044481 count=1 conv=notrunc status=none
    equal "$(value depth "$MNT/jobs/status")" 0
    dd if=/dev/zero of="$MNT/jobs/queue" bs=1044480 count=1 conv=notrunc status=none
    equal "$(wc -c <"$MNT/jobs/queue")" 1044480
}
