# Leases, dead letters, topics, subscriptions, streams of bytes and types, as a shell sees them.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

has() { [ -e "$MNT/$1" ]; }
has_not() { ! has "$1"; }
listed() { ls "$MNT/$1" | tr '\n' ' '; }
# told TEXT: what `tell` says on the lease that descriptor 5 has.
told() { env printf '%s' "$1" >&5; }
topic() { mkdir "$MNT/$1"; echo 'type topic' >"$MNT/$1/ctl"; }
# follow FILE NAME: its lines go to $BATS_TEST_TMPDIR/NAME from now on.
follow() { bg cat "$1" >"$BATS_TEST_TMPDIR/$2"; }
got() { [ "$(cat "$BATS_TEST_TMPDIR/$1")" = "$2" ]; }

@test "a lease is read, and gone once it is acknowledged" {
    printf 'one\n' >"$MNT/jobs/queue"
    printf 'two\n' >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    equal "$line" one
    equal "$(value leased "$MNT/jobs/status") $(value depth "$MNT/jobs/status")" "1 1"
    echo ack >&5
    equal "$(value leased "$MNT/jobs/status")" 0
    read -r -u 5 line
    equal "$line" two
    echo ack >&5
    exec 5>&-
    equal "$(cat "$MNT/jobs/queue")" ""
    equal "$(column "$MNT/jobs/stats" acked)" 2
}

@test "at the end of a leased message comes end of file, until it is settled" {
    env printf 'a\nb' >"$MNT/jobs/queue"
    env printf 'next' >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    equal "$(cat <&5)" $'a\nb'
    equal "$(cat <&5)" ""
    echo ack >&5
    equal "$(cat <&5)" next
    exec 5>&-
}

@test "head takes a line and leaves the rest of the message to the next program" {
    env printf 'a\nb\nc' >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    equal "$(head -n1 <&5)" a
    told 'extend 1m'
    equal "$(cat <&5)" $'b\nc'
    echo ack >&5
    exec 5>&-
}

@test "a lease that is closed comes back, flagged and counted" {
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    exec 5>&-
    wait_until status_is jobs depth 1
    equal "$(column "$MNT/jobs/peek" redelivered) $(column "$MNT/jobs/peek" deliveries)" "1 1"
    equal "$(cat "$MNT/jobs/queue")" job
}

@test "a lease ends with the process that holds it" {
    echo job >"$MNT/jobs/queue"
    bg bash -c 'exec 5<>"$1"; read -r -u 5 line; exec sleep 1000 5<&5' bash "$MNT/jobs/lease"
    wait_until status_is jobs leased 1
    kill -KILL "$BG_PID"
    wait_until status_is jobs depth 1
    equal "$(value leased "$MNT/jobs/status")" 0
}

@test "nobody else gets a leased message; two holders have two" {
    echo 1 >"$MNT/jobs/queue"
    echo 2 >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease" 6<>"$MNT/jobs/lease"
    read -r -u 5 one
    read -r -u 6 two
    equal "$one $two" "1 2"
    equal "$(cat "$MNT/jobs/queue")" ""
    told ack
    echo nack >&6
    equal "$(cat "$MNT/jobs/queue")" 2
    exec 5>&- 6>&-
}

@test "nack with a delay keeps it back for so long" {
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    echo 'nack 1h' >&5
    equal "$(value delayed "$MNT/jobs/status") $(value depth "$MNT/jobs/status")" "1 0"
    exec 5>&-
    echo purge >"$MNT/jobs/ctl"
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    echo 'nack 50ms' >&5
    read -r -u 5 line # waits for it
    equal "$line" job
    echo ack >&5
    exec 5>&-
}

@test "a lease that has run out is somebody else's, and its holder is told so" {
    echo 'lease 600ms' >"$MNT/jobs/ctl"
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    wait_until status_is jobs depth 1
    fails_with "Stale file handle" told ack
    equal "$(value last-error "$MNT/jobs/status")" "the lease has ended"
    read -r -u 5 line
    equal "$line" job
    told 'extend 1h'
    told ack
    exec 5>&-
    equal "$(column "$MNT/jobs/stats" lease_timed_out)" 1
}

@test "what a lease does not understand is refused and changes nothing" {
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    fails_with "Stale file handle" told ack
    equal "$(value last-error "$MNT/jobs/status")" "no lease is held"
    read -r -u 5 line
    for word in yes 'ack now' extend 'extend 0' 'nack soon' 'nack 1s 2s' 'dead 1s' ''; do
        [ -z "$word" ] || fails_with "Invalid argument" told "$word"
    done
    equal "$(value leased "$MNT/jobs/status")" 1
    told $'ack\n'
    exec 5>&-
}

@test "after max-deliveries a message is dead; dead letters are read, and sent again by redrive" {
    echo 'max-deliveries 2' >"$MNT/jobs/ctl"
    echo bad >"$MNT/jobs/queue"
    for _ in 1 2; do
        exec 5<>"$MNT/jobs/lease"
        read -r -u 5 line
        echo nack >&5
        exec 5>&-
    done
    equal "$(value dead "$MNT/jobs/status") $(value depth "$MNT/jobs/status")" "1 0"
    equal "$(column "$MNT/jobs/dead/peek" deliveries)" 2
    fails_with "Directory not empty" rmdir "$MNT/jobs"
    echo redrive >"$MNT/jobs/ctl"
    equal "$(value dead "$MNT/jobs/status")" 0
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    equal "$line" bad
    echo dead >&5
    exec 5>&-
    equal "$(cat "$MNT/jobs/dead/next")" bad
    equal "$(cat "$MNT/jobs/dead/queue")" ""
    rmdir "$MNT/jobs"
}

@test "dead/next waits for a dead letter" {
    follow "$MNT/jobs/dead/next" dead
    wait_until status_is jobs waiting-readers 1
    echo bad >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    echo dead >&5
    exec 5>&-
    wait_until got dead bad
}

@test "framed/lease gives the frame, with the flag of a message that came back" {
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    exec 5>&-
    wait_until status_is jobs depth 1
    exec 5<>"$MNT/jobs/framed/lease"
    run python3 -c '
import os, struct
frame = os.read(5, 65536)
print(struct.unpack_from("<H", frame, 8)[0] & 0xffff, frame[96:].decode().strip())'
    [[ $output == *job* ]]
    echo ack >&5
    exec 5>&-
}

@test "which files there are follows the type, for ls at once" {
    has jobs/lease
    has jobs/dead/queue
    has jobs/framed/lease
    has_not jobs/subs
    listed jobs >/dev/null
    listed jobs/framed >/dev/null
    echo 'type topic' >"$MNT/jobs/ctl"
    equal "$(listed jobs)" "ctl framed next notify payload priority put queue share stats status stream subs "
    equal "$(listed jobs/framed)" "next put queue stream "
    has_not jobs/lease
    has_not jobs/dead
    has_not jobs/framed/lease
    has jobs/subs
    fails_with "No such file" cat "$MNT/jobs/lease"
    echo 'type stream' >"$MNT/jobs/ctl"
    equal "$(listed jobs)" "ctl notify share stats status stream "
    has_not jobs/queue
    has_not jobs/priority
    has_not jobs/subs
    setfattr -n user.ipcfs.type -v queue "$MNT/jobs"
    equal "$(listed jobs)" \
        "ctl dead framed lease next notify payload peek priority put queue share stats status stream "
    equal "$(listed jobs/framed)" "lease next put queue stream "
    echo hello >"$MNT/jobs/queue"
    fails_with "Device or resource busy" put "$MNT/jobs/ctl" 'type topic'
}

@test "names of files of all types are reserved" {
    for name in lease dead subs filter call serve instances; do
        fails_with "File exists" mkdir "$MNT/jobs/$name"
    done
    mkdir "$MNT/lease" "$MNT/subs"
}

@test "what is published goes to everybody who reads then" {
    topic news
    echo nobody >"$MNT/news/queue"
    follow "$MNT/news/stream" one
    follow "$MNT/news/stream" two
    follow "$MNT/news/next" three
    wait_until status_is news subscribers 3
    echo a >"$MNT/news/queue"
    # Before the next, which would be read first by who has not read yet.
    wait_until got one a
    wait_until got two a
    wait_until got three a
    echo b >"$MNT/news/priority/high"
    wait_until got one $'a\nb'
    wait_until got two $'a\nb'
    wait_until status_is news subscribers 2
    fails_with "Permission denied" cat "$MNT/news/queue"
    equal "$(column "$MNT/news/stats" unmatched)" 1
}

@test "a named subscription lasts, and is shared by those who read it" {
    topic news
    mkdir "$MNT/news/subs/alice"
    equal "$(listed news/subs/alice)" \
        "ctl dead filter framed lease next notify peek queue stats status stream "
    for n in 1 2 3; do echo "$n" >"$MNT/news/queue"; done
    equal "$(cut -f1 "$MNT/news/subs/alice/peek" | tail -n+2 | tr '\n' ' ')" "1 2 3 "
    equal "$(cat "$MNT/news/subs/alice/next")" 1
    exec 5<>"$MNT/news/subs/alice/lease"
    read -r -u 5 line
    equal "$line" 2
    told ack
    exec 5>&-
    fails_with "Directory not empty" rmdir "$MNT/news/subs/alice"
    fails_with "Directory not empty" rmdir "$MNT/news"
    fails_with "Permission denied" put "$MNT/news/subs/alice/queue" x
    fails_with "Operation not permitted" mkdir "$MNT/news/subs/alice/below"
    equal "$(cat "$MNT/news/subs/alice/queue")" 3
    mv "$MNT/news/subs/alice" "$MNT/news/subs/bob"
    rmdir "$MNT/news/subs/bob"
    rmdir "$MNT/news"
}

@test "retain gives a newcomer the last ones" {
    topic news
    echo 'retain 2' >"$MNT/news/ctl"
    for n in 1 2 3; do echo "$n" >"$MNT/news/queue"; done
    mkdir "$MNT/news/subs/alice"
    equal "$(cat "$MNT/news/subs/alice/queue")" $'2\n3'
    follow "$MNT/news/stream" follower
    wait_until got follower $'2\n3'
}

@test "a filter says what a subscription takes" {
    topic news
    mkdir "$MNT/news/subs/alice"
    equal "$(cat "$MNT/news/subs/alice/filter")" ""
    printf 'priority high\nprefix E:\n' >"$BATS_TEST_TMPDIR/filter"
    cat "$BATS_TEST_TMPDIR/filter" >"$MNT/news/subs/alice/filter"
    grep -qx 'prefix E:' "$MNT/news/subs/alice/filter"
    echo E:low >"$MNT/news/queue"
    echo E:high >"$MNT/news/priority/high"
    echo I:high >"$MNT/news/priority/high"
    equal "$(cat "$MNT/news/subs/alice/queue")" E:high
    fails_with "Invalid argument" put "$MNT/news/subs/alice/filter" $'prefix x\nnonsense'
    [[ $(value last-error "$MNT/news/subs/alice/status") == *"line 2"* ]]
    grep -qx 'prefix E:' "$MNT/news/subs/alice/filter"
}

@test "a subscription above takes what is published below, if its owner may read there" {
    topic news
    topic news/sport
    topic news/secret
    chmod 700 "$MNT/news/secret"
    chmod 777 "$MNT/news/subs"
    sh_as 65534 'mkdir "$1/news/subs/all" && echo "recursive on" >"$1/news/subs/all/filter"' "$MNT"
    echo goal >"$MNT/news/sport/queue"
    echo hush >"$MNT/news/secret/queue"
    echo top >"$MNT/news/queue"
    equal "$(sh_as 65534 'cat "$1/news/subs/all/queue"' "$MNT")" $'goal\ntop'
}

@test "a subscription above counts its owner's groups, after a restart too" {
    topic news
    for each in team theirs; do
        topic "news/$each"
        echo 'durable async' >"$MNT/news/$each/ctl"
        chmod 750 "$MNT/news/$each"
    done
    echo 'durable async' >"$MNT/news/ctl"
    chgrp 4001 "$MNT/news/team"
    # The directory's group is that of whatever is made in it, not of who makes it.
    chgrp 4002 "$MNT/news/theirs" "$MNT/news/subs"
    chmod 2777 "$MNT/news/subs"
    setpriv --reuid=65534 --regid=65534 --groups=4001 -- \
        bash -c 'mkdir "$1/news/subs/all" && echo "recursive on" >"$1/news/subs/all/filter"' bash "$MNT"
    equal "$(stat -c %g "$MNT/news/subs/all")" 4002
    echo 'durable async' >"$MNT/news/subs/all/ctl"
    echo ours >"$MNT/news/team/queue"
    echo theirs >"$MNT/news/theirs/queue"
    equal "$(cat "$MNT/news/subs/all/queue")" ours
    stop_daemon
    start_daemon
    echo again >"$MNT/news/team/queue"
    echo theirs >"$MNT/news/theirs/queue"
    equal "$(cat "$MNT/news/subs/all/queue")" again
}

@test "a slow subscription loses its own messages and nobody else's" {
    topic news
    mkdir "$MNT/news/subs/slow" "$MNT/news/subs/quick"
    echo 'capacity 2' >"$MNT/news/subs/slow/ctl"
    for n in 1 2 3 4 5; do echo "$n" >"$MNT/news/queue"; done
    equal "$(cat "$MNT/news/subs/quick/queue")" $'1\n2\n3\n4\n5'
    equal "$(cat "$MNT/news/subs/slow/queue")" $'4\n5'
}

@test "only who may read the topic's stream may subscribe" {
    topic news
    equal "$(stat -c %A "$MNT/news/subs")" drwxr-xr-t
    chmod 1777 "$MNT/news/subs"
    chmod 622 "$MNT/news/queue"
    sh_as 65534 'mkdir "$1/news/subs/mine" && echo published >"$1/news/queue"' "$MNT"
    equal "$(sh_as 65534 'cat "$1/news/subs/mine/queue"' "$MNT")" published
    chmod 600 "$MNT/news/stream"
    fails_with "Permission denied" sh_as 65534 'mkdir "$1/news/subs/other"' "$MNT"
    fails_with "Permission denied" sh_as 65534 'cat "$1/news/stream"' "$MNT"
    # As in the root, others' subscriptions are not theirs to remove.
    mkdir "$MNT/news/subs/root"
    fails_with "Operation not permitted" sh_as 65534 'rmdir "$1/news/subs/root"' "$MNT"
}

@test "multicast goes to the groups that a message names" {
    mkdir "$MNT/cast"
    echo 'type multicast' >"$MNT/cast/ctl"
    mkdir "$MNT/cast/subs/red" "$MNT/cast/subs/all"
    echo 'group red' >"$MNT/cast/subs/red/filter"
    IPCFS_MOUNT=$MNT "$IPCFS" pub --group red "$MNT/cast" stop
    echo plain >"$MNT/cast/queue"
    equal "$(cat "$MNT/cast/subs/red/queue")" stop
}

@test "a stream is bytes without boundaries, and ends with its last writer" {
    echo 'type stream' >"$MNT/jobs/ctl"
    follow "$MNT/jobs/stream" out
    wait_until status_is jobs waiting-readers 1
    {
        env printf 'one '
        env printf 'two '
        env printf 'three'
    } >"$MNT/jobs/stream"
    wait_until is_gone "$BG_PID"
    got out 'one two three'
    head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/in"
    bg cat "$BATS_TEST_TMPDIR/in" >"$MNT/jobs/stream"
    cat "$MNT/jobs/stream" | cmp - "$BATS_TEST_TMPDIR/in"
}

@test "what a reader of a stream leaves is there for the next one" {
    echo 'type stream' >"$MNT/jobs/ctl"
    exec 5<>"$MNT/jobs/stream"
    env printf 'abcdefghij' >&5
    equal "$(dd if="$MNT/jobs/stream" bs=4 count=1 status=none)" abcd
    wait_until status_is jobs bytes 6
    equal "$(dd if="$MNT/jobs/stream" bs=100 count=1 status=none)" efghij
    exec 5>&-
}

@test "statistics tell of leases, dead letters and subscribers" {
    topic news
    follow "$MNT/news/stream" out
    wait_until status_is news subscribers 1
    equal "$(column "$MNT/kern/ipc/stats/channels" subscribers news)" 1
    equal "$(column "$MNT/kern/ipc/stats/channels" type news)" topic
    echo job >"$MNT/jobs/queue"
    exec 5<>"$MNT/jobs/lease"
    read -r -u 5 line
    told dead
    exec 5>&-
    equal "$(column "$MNT/kern/ipc/stats/messages" dead jobs)" 1
    equal "$(column "$MNT/kern/ipc/stats/messages" leased jobs)" 1
    equal "$(column "$MNT/kern/ipc/stats/channels" dead jobs)" 1
}

@test "inotify sees what arrives at a subscription" {
    topic news
    mkdir "$MNT/news/subs/alice"
    bg inotifywait -m -q -e modify "$MNT/news/subs/alice" >"$BATS_TEST_TMPDIR/events" 2>"$BATS_TEST_TMPDIR/ready"
    wait_until status_is news/subs/alice state ok
    sent() {
        echo x >"$MNT/news/queue"
        grep -q queue "$BATS_TEST_TMPDIR/events"
    }
    wait_until sent
}
