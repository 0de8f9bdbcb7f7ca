#!/usr/bin/env bats
# The command ipcfs, as a shell user meets it: one daemon a test, started by helper.bash.
# Nothing here is timed: what waits is waited for with a deadline far beyond any machine's slowness.

bats_require_minimum_version 1.5.0
load helper

setup() {
    start_daemon
    export IPCFS_MOUNT=$MNT
}

teardown() {
    # The trees that the tests of `up` and `down` start themselves.
    if [ -e "$BATS_TEST_TMPDIR/tree" ]; then "$IPCFS" -q --mount "$BATS_TEST_TMPDIR/tree" down || true; fi
    clean_up
}

# has_readers CHANNEL N: the channel's status tells of N open readers.
has_readers() { status_is "$1" readers "$2"; }

field() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval("d"+sys.argv[1]))' "$1"; }

@test "send and recv hand over exactly the bytes" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs build
    run -0 "$IPCFS" recv jobs
    [ "$output" = build ]
    printf 'a\0b\nc\n' | "$IPCFS" send jobs
    "$IPCFS" recv jobs | cmp - <(printf 'a\0b\nc\n')
}

@test "what the command sends cat reads, and what echo writes the command receives" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two
    [ "$(cat "$MNT/jobs/queue")" = onetwo ]
    echo three >"$MNT/jobs/queue"
    [ "$("$IPCFS" recv jobs)" = three ]
}

@test "a channel may be named by its path, and from within the tree" {
    "$IPCFS" mkdir -p a/b
    "$IPCFS" send "$MNT/a/b" hello
    [ "$(cd "$MNT/a" && "$IPCFS" recv ./b)" = hello ]
    run -2 "$IPCFS" send /somewhere/else x
    run -2 "$IPCFS" send ../../etc x
}

@test "send takes one message a line with --lines, and the last one without a newline" {
    "$IPCFS" mkdir jobs
    printf 'one\ntwo\n\nthree' | "$IPCFS" send jobs --lines
    run -0 "$IPCFS" recv jobs -n 3 --newline
    [ "$output" = $'one\ntwo\nthree' ]
    run -3 "$IPCFS" recv jobs --timeout 0
}

@test "send --file sends a file, and - standard input" {
    "$IPCFS" mkdir jobs
    seq 10000 >"$BATS_TEST_TMPDIR/numbers"
    "$IPCFS" send jobs --file "$BATS_TEST_TMPDIR/numbers"
    "$IPCFS" recv jobs | cmp - "$BATS_TEST_TMPDIR/numbers"
    echo hello | "$IPCFS" send jobs -
    [ "$("$IPCFS" recv jobs)" = hello ]
}

@test "priorities go first, by name and by number" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs -p low last
    "$IPCFS" send jobs third
    "$IPCFS" send jobs -p 200 second
    "$IPCFS" send jobs -p critical first
    run -0 "$IPCFS" recv jobs -n 4 --newline
    [ "$output" = $'first\nsecond\nthird\nlast' ]
    run -2 "$IPCFS" send jobs -p 256 x
    run -2 "$IPCFS" send jobs -p urgent x
}

@test "recv --json tells what the kernel knows of the sender" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs --type text/plain -p high --ttl 1h 'größer "x"'
    "$IPCFS" recv jobs --json >"$BATS_TEST_TMPDIR/json"
    [ "$(field '["body"]' <"$BATS_TEST_TMPDIR/json")" = 'größer "x"' ]
    [ "$(field '["encoding"]' <"$BATS_TEST_TMPDIR/json")" = utf-8 ]
    [ "$(field '["priority"]' <"$BATS_TEST_TMPDIR/json")" = 192 ]
    [ "$(field '["type"]' <"$BATS_TEST_TMPDIR/json")" = data ]
    [ "$(field '["content-type"]' <"$BATS_TEST_TMPDIR/json")" = text/plain ]
    [ "$(field '["uid"]' <"$BATS_TEST_TMPDIR/json")" = "$(id -u)" ]
    [ "$(field '["deadline"] > d["time"]' <"$BATS_TEST_TMPDIR/json")" = True ]
    [ "$(field '["sequence"]' <"$BATS_TEST_TMPDIR/json")" = 1 ]
}

@test "recv --json gives a body that is not UTF-8 as base64" {
    "$IPCFS" mkdir jobs
    printf '\xff\x00\xfe' | "$IPCFS" send jobs
    "$IPCFS" recv jobs --json >"$BATS_TEST_TMPDIR/json"
    [ "$(field '["encoding"]' <"$BATS_TEST_TMPDIR/json")" = base64 ]
    [ "$(field '["body"]' <"$BATS_TEST_TMPDIR/json" | base64 -d | od -An -tx1 | tr -d ' \n')" = ff00fe ]
    [ "$(field '["length"]' <"$BATS_TEST_TMPDIR/json")" = 3 ]
}

@test "a message past its ttl is not delivered" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs --ttl 1ns stale
    "$IPCFS" send jobs fresh
    [ "$("$IPCFS" recv jobs --timeout 20s)" = fresh ]
}

@test "recv -n 0 drains what is there and succeeds when there is nothing" {
    "$IPCFS" mkdir jobs
    run -0 "$IPCFS" recv jobs -n 0
    [ -z "$output" ]
    seq 100 | "$IPCFS" send jobs --lines
    "$IPCFS" recv jobs -n 0 --newline | cmp - <(seq 100)
}

@test "recv -0 keeps messages apart whatever is in them" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs $'one\nline' two
    run -0 bash -c '"$1" recv jobs -n 2 -0 | xargs -0 -n1 printf "<%s>"' _ "$IPCFS"
    [ "$output" = $'<one\nline><two>' ]
}

@test "recv exits 3 when no message comes in time, and the message that comes later is not lost" {
    "$IPCFS" mkdir jobs
    run -3 "$IPCFS" recv jobs --timeout 50ms
    [[ "$output" == *"no message within 50ms"* ]]
    run -3 "$IPCFS" -q recv jobs --timeout 0
    [ -z "$output" ]
    "$IPCFS" send jobs late
    [ "$(cat "$MNT/jobs/queue")" = late ]
}

@test "a waiting recv gets the message that comes" {
    "$IPCFS" mkdir jobs
    bg "$IPCFS" recv jobs >"$BATS_TEST_TMPDIR/out"
    local receiver=$BG_PID
    wait_until has_readers jobs 1
    "$IPCFS" send jobs here
    wait "$receiver"
    [ "$(cat "$BATS_TEST_TMPDIR/out")" = here ]
}

@test "Ctrl-C ends a waiting recv with 130, and it has consumed nothing" {
    "$IPCFS" mkdir jobs
    # A shell's background job ignores SIGINT; python starts it with the default.
    run -0 python3 - "$IPCFS" "$MNT/jobs/status" <<'P'
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
p = subprocess.Popen([sys.argv[1], "recv", "jobs"], stdout=subprocess.PIPE)
end = time.monotonic() + 20
while "readers 1\n" not in open(sys.argv[2]).read():
    assert time.monotonic() < end
p.send_signal(signal.SIGINT)
assert p.wait(20) in (130, -signal.SIGINT), p.returncode
P
    "$IPCFS" send jobs kept
    [ "$(cat "$MNT/jobs/queue")" = kept ]
}

@test "send waits while the channel is full, and goes on when there is room" {
    "$IPCFS" mkdir jobs --set capacity=4 --set high-watermark=100 --set low-watermark=50
    "$IPCFS" send jobs 1 2 3 4
    run -3 "$IPCFS" send jobs --timeout 0 5
    [[ "$output" == *"jobs is full (4 of 4)"* ]]
    run -3 "$IPCFS" send jobs --timeout 50ms 5
    bg "$IPCFS" send jobs 5
    local sender=$BG_PID
    for expected in 1 2 3 4 5; do
        [ "$("$IPCFS" recv jobs --timeout 20s)" = "$expected" ]
    done
    wait "$sender"
}

@test "send tells at once when the policy is reject" {
    "$IPCFS" mkdir jobs --set capacity=2 --set high-watermark=100 --set overflow=reject
    "$IPCFS" send jobs 1 2
    run -3 "$IPCFS" send jobs 3
    [[ "$output" == *"overflow policy is reject"* ]]
    [ "$("$IPCFS" recv jobs -n 0)" = 12 ]
}

@test "send says which limit a message is over, and sends nothing of it" {
    "$IPCFS" mkdir jobs --set max-message=10 --set max-payload=20
    run -1 "$IPCFS" send jobs 123456789012345678901
    [[ "$output" == *"a message of at least 21 is too long; max-payload is 20"* ]]
    run -1 bash -c 'head -c 2000000 /dev/zero | "$1" send jobs' _ "$IPCFS"
    [ "$(cat "$MNT/jobs/queue")" = "" ]
    "$IPCFS" send jobs 12345678901
    [ "$(cat "$MNT/jobs/queue")" = 12345678901 ]
}

@test "the largest message goes through, framed and not" {
    "$IPCFS" mkdir jobs
    head -c 1044480 /dev/urandom >"$BATS_TEST_TMPDIR/large"
    "$IPCFS" send jobs --file "$BATS_TEST_TMPDIR/large"
    "$IPCFS" recv jobs | cmp - "$BATS_TEST_TMPDIR/large"
    # With its header it does not fit one write.
    "$IPCFS" send jobs -p 7 --file "$BATS_TEST_TMPDIR/large"
    "$IPCFS" recv jobs | cmp - "$BATS_TEST_TMPDIR/large"
    truncate -s 1044384 "$BATS_TEST_TMPDIR/large"
    "$IPCFS" send jobs -p 7 --file "$BATS_TEST_TMPDIR/large"
    "$IPCFS" recv jobs | cmp - "$BATS_TEST_TMPDIR/large"
}

@test "an empty message goes with a header only" {
    "$IPCFS" mkdir jobs
    run -2 "$IPCFS" send jobs ''
    "$IPCFS" send jobs --type data ''
    "$IPCFS" recv jobs --json --timeout 20s >"$BATS_TEST_TMPDIR/json"
    [ "$(field '["length"]' <"$BATS_TEST_TMPDIR/json")" = 0 ]
}

@test "recv and follow exit 4 when the channel is removed" {
    "$IPCFS" mkdir jobs
    for command in recv follow; do
        "$IPCFS" mkdir -p jobs
        bg "$IPCFS" "$command" jobs 2>"$BATS_TEST_TMPDIR/err"
        local receiver=$BG_PID
        wait_until has_readers jobs 1
        "$IPCFS" rm jobs
        local code=0
        wait "$receiver" || code=$?
        [ "$code" = 4 ]
        grep -q "jobs was removed" "$BATS_TEST_TMPDIR/err"
    done
}

@test "follow prints messages as they come, and one object a line with --json" {
    "$IPCFS" mkdir jobs
    bg "$IPCFS" follow jobs --json >"$BATS_TEST_TMPDIR/out"
    local follower=$BG_PID
    seq 50 | "$IPCFS" send jobs --lines
    fifty() { [ "$(wc -l <"$BATS_TEST_TMPDIR/out")" = 50 ]; }
    wait_until fifty
    kill "$follower"
    wait "$follower" || true
    python3 -c 'import json,sys; print("\n".join(json.loads(l)["body"] for l in sys.stdin))' \
        <"$BATS_TEST_TMPDIR/out" | cmp - <(seq 50)
}

@test "a channel of type sync hands a message over" {
    "$IPCFS" mkdir meeting --type sync
    [ "$("$IPCFS" ctl meeting type)" = sync ]
    bg "$IPCFS" send meeting hello
    local sender=$BG_PID
    [ "$("$IPCFS" recv meeting --timeout 20s)" = hello ]
    wait "$sender"
}

@test "peek shows what is queued and takes nothing" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs alpha beta
    run -0 "$IPCFS" peek jobs
    [ "${#lines[@]}" = 3 ]
    [ "$("$IPCFS" peek jobs --json | field '.__len__()')" = 2 ]
    [ "$("$IPCFS" recv jobs -n 0)" = alphabeta ]
    [ "$("$IPCFS" peek jobs --json)" = '[]' ]
}

@test "ctl shows all settings, one, and sets several at once" {
    "$IPCFS" mkdir jobs
    run -0 "$IPCFS" ctl jobs
    [[ "$output" == *capacity*1000* ]]
    "$IPCFS" ctl jobs capacity 5000 overflow reject
    [ "$("$IPCFS" ctl jobs capacity)" = 5000 ]
    [ "$("$IPCFS" ctl jobs --json | field '["overflow"]')" = reject ]
    run -1 "$IPCFS" ctl jobs no-such-setting
    [[ "$output" == *"there are:"*capacity* ]]
}

@test "ctl sets all or nothing, and says why" {
    "$IPCFS" mkdir jobs
    run -1 "$IPCFS" ctl jobs capacity 7 overflow sideways
    [[ "$output" == *overflow*sideways* ]]
    [[ "$output" == *"nothing was changed"* ]]
    [ "$("$IPCFS" ctl jobs capacity)" = 1000 ]
    run -2 "$IPCFS" ctl jobs capacity 7 overflow
}

@test "ctl purges, pauses and resumes" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two
    "$IPCFS" ctl jobs purge
    run -3 "$IPCFS" -q recv jobs --timeout 0
    "$IPCFS" ctl jobs pause
    [ "$("$IPCFS" status jobs --json | field '["state"]')" = paused ]
    run -3 "$IPCFS" send jobs --timeout 0 x
    [[ "$output" == *"jobs is paused"* ]]
    "$IPCFS" ctl jobs resume
    "$IPCFS" send jobs x
    [ "$("$IPCFS" recv jobs)" = x ]
}

@test "mkdir makes parents, sets the mode, and leaves nothing when a setting is wrong" {
    run -1 "$IPCFS" mkdir a/b/c
    [[ "$output" == *"mkdir -p"* ]]
    "$IPCFS" mkdir -p -m 750 a/b/c
    [ "$(stat -c %a "$MNT/a/b/c")" = 750 ]
    [ "$(stat -c %a "$MNT/a/b/c/queue")" = 640 ]
    run -1 "$IPCFS" mkdir a
    [[ "$output" == *"exists already"* ]]
    "$IPCFS" mkdir -p a
    run -1 "$IPCFS" mkdir bad --set overflow=sideways
    [ ! -e "$MNT/bad" ]
    run -2 "$IPCFS" mkdir bad --set overflow
    run -2 "$IPCFS" mkdir bad -m 999
    run -1 "$IPCFS" mkdir a/queue
    [[ "$output" == *reserved* ]]
}

@test "rm refuses what is not empty and says how to go on" {
    "$IPCFS" mkdir -p jobs/sub
    run -1 "$IPCFS" rm jobs
    [[ "$output" == *"rm -r"* ]]
    "$IPCFS" send jobs/sub one
    run -1 "$IPCFS" rm -r jobs
    [[ "$output" == *"1 message;"*--force* ]]
    "$IPCFS" rm -r --force jobs
    [ ! -e "$MNT/jobs" ]
    run -1 "$IPCFS" rm jobs
    "$IPCFS" rm -f jobs
}

@test "ls lists channels with what is in them" {
    run -0 "$IPCFS" ls
    [ -z "$output" ]
    "$IPCFS" mkdir -p jobs/sub other
    "$IPCFS" send jobs 12345
    [ "$("$IPCFS" ls --json | field '[0]["channel"]')" = jobs ]
    [ "$("$IPCFS" ls --json | field '[0]["depth"]')" = 1 ]
    [ "$("$IPCFS" ls --json | field '.__len__()')" = 2 ]
    [ "$("$IPCFS" ls -R --json | field '[1]["channel"]')" = jobs/sub ]
    [ "$("$IPCFS" ls jobs --json | field '[0]["channel"]')" = jobs/sub ]
    run -0 "$IPCFS" ls -l
    [[ "$output" == *"$(id -un)"* ]]
}

@test "status tells of a channel and of the whole tree" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    [ "$("$IPCFS" status jobs --json | field '["depth"]')" = 1 ]
    [ "$("$IPCFS" status --json | field '["mount"]')" = "$MNT" ]
    [ "$("$IPCFS" status --json | field '["messages"]')" = 1 ]
    run -1 "$IPCFS" status nothing
    [[ "$output" == *"there is no channel nothing"* ]]
}

@test "stats shows every statistics file, and a channel's" {
    "$IPCFS" mkdir jobs
    for subject in messages channels mappings notifications resources jobs; do
        "$IPCFS" stats "$subject"
        "$IPCFS" stats "$subject" --json | python3 -m json.tool >/dev/null
    done
    run -1 "$IPCFS" stats nonsense
}

@test "names cannot play with the terminal" {
    mkdir "$MNT/"$'evil\033[2Jname'
    script -qec "\"$IPCFS\" ls" /dev/null </dev/null >"$BATS_TEST_TMPDIR/out"
    grep -qF 'evil\x1b[2Jname' "$BATS_TEST_TMPDIR/out"
    run ! grep -q $'\033' "$BATS_TEST_TMPDIR/out"
    [ "$("$IPCFS" ls --json | field '[0]["channel"]')" = $'evil\033[2Jname' ]
}

@test "a waiting send says on the terminal what it waits for" {
    "$IPCFS" mkdir jobs --set capacity=2 --set high-watermark=100
    "$IPCFS" send jobs 1 2
    bg script -qefc "\"$IPCFS\" send jobs 3" "$BATS_TEST_TMPDIR/screen" </dev/null >/dev/null
    local sender=$BG_PID
    wait_until grep -q "waiting: jobs is full (2 of 2)" "$BATS_TEST_TMPDIR/screen"
    [ "$("$IPCFS" recv jobs -n 3 --timeout 20s)" = 123 ]
    wait "$sender"
}

@test "doctor finds the daemon and its JSON is JSON" {
    "$IPCFS" doctor --json >"$BATS_TEST_TMPDIR/json" || true
    python3 - "$BATS_TEST_TMPDIR/json" "$MNT" <<'P'
import json, sys
report = json.load(open(sys.argv[1]))
daemon = [c for c in report["checks"] if c["check"] == "daemon"][0]
assert daemon["level"] == "ok" and sys.argv[2] in daemon["found"], daemon
assert report["ok"] == all(c["level"] != "fail" for c in report["checks"])
assert all(c["advice"] for c in report["checks"] if c["level"] != "ok")
survival = [c for c in report["checks"] if c["check"] == "survival"][0]
survives = "survives yes\n" in open(sys.argv[2] + "/kern/ipc/version").read()
assert (survival["level"] == "ok") == survives, survival
P
    stop_daemon
    start_daemon --set fuse.survive=false
    "$IPCFS" doctor >"$BATS_TEST_TMPDIR/out" || true
    grep -A1 '^warn  survival .*nobody holds' "$BATS_TEST_TMPDIR/out" | grep -q 'fuse.survive = true'
}

@test "version tells both, and help has examples everywhere" {
    run -0 "$IPCFS" version
    [[ "$output" == *ipcfs*daemon* ]]
    [ "$("$IPCFS" version --json | field '["daemon"] is not None')" = True ]
    for command in up down status ls mkdir rm send recv follow peek ctl stats maps doctor version; do
        run -0 "$IPCFS" "$command" --help
        [[ "$output" == *Examples:* ]]
    done
    run -2 "$IPCFS"
    run -2 "$IPCFS" nonsense
    run -2 "$IPCFS" recv
}

@test "without a tree it says how to start one" {
    run -1 "$IPCFS" --mount "$BATS_TEST_TMPDIR" ls
    [[ "$output" == *"is not mounted; start it with: ipcfs --mount $BATS_TEST_TMPDIR up"* ]]
}

@test "up starts a tree, is content with one that runs, and down ends it" {
    local tree=$BATS_TEST_TMPDIR/tree
    mkdir "$tree"
    [ -x "$(dirname "$IPCFS")/ipcfsd" ] || skip "no ipcfsd beside ipcfs"
    "$IPCFS" --mount "$tree" up -- --state "$BATS_TEST_TMPDIR/state" 3>&-
    [ -e "$tree/kern/ipc/version" ]
    run -0 "$IPCFS" --mount "$tree" up
    [[ "$output" == *already* ]]
    mkdir "$tree/jobs"
    echo hello >"$tree/jobs/queue"
    "$IPCFS" --mount "$tree" down
    run ! mountpoint -q "$tree"
    run -0 "$IPCFS" --mount "$tree" down
    [[ "$output" == *"not mounted"* ]]
}

@test "down cleans up after a killed daemon" {
    local tree=$BATS_TEST_TMPDIR/tree
    mkdir "$tree"
    [ -x "$(dirname "$IPCFS")/ipcfsd" ] || skip "no ipcfsd beside ipcfs"
    "$IPCFS" --mount "$tree" up -- --state "$BATS_TEST_TMPDIR/state" 3>&-
    local name=${tree//\//!} directory=/run/ipcfs
    [ "$(id -u)" = 0 ] || directory=${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/ipcfs}
    kill -9 "$(cat "${directory:-/tmp/ipcfs-$(id -u)}/$name.lock")"
    # -f: plain stat may be answered by the kernel from attributes that it still has.
    dead() { ! stat -f "$tree" 2>/dev/null; }
    wait_until dead
    run -4 "$IPCFS" --mount "$tree" ls
    [[ "$output" == *"down"* ]]
    run -1 "$IPCFS" doctor
    [[ "$output" == *"mount $tree"* ]]
    "$IPCFS" --mount "$tree" down
    run ! mountpoint -q "$tree"
}

@test "completion offers commands, channels, settings and values" {
    "$IPCFS" mkdir -p jobs/sub journal
    # shellcheck disable=SC2016  # the name is to be as it stands
    "$IPCFS" mkdir 'we$(rm -rf)'
    PATH=${IPCFS%/*}:$PATH run -0 bash -c '
        source "$1"
        complete_words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _ipcfs
            echo "${COMPREPLY[*]}"
        }
        complete_words ipcfs se
        complete_words ipcfs recv jo
        complete_words ipcfs recv jobs/
        complete_words ipcfs send "$2/jour"
        complete_words ipcfs ctl jobs capa
        complete_words ipcfs ctl jobs overflow drop
        complete_words ipcfs --mount "$2" mkdir -p jobs/new --set over
        complete_words ipcfs stats jobs --w
        complete_words ipcfs rm we
        complete_words ipcfs nonsense ""
    ' _ "$BATS_TEST_DIRNAME/../../client/completion/ipcfs.bash" "$MNT"
    [ "${lines[0]}" = send ]
    [ "${lines[1]}" = "jobs jobs/ journal" ]
    [ "${lines[2]}" = jobs/sub ]
    [ "${lines[3]}" = "$MNT/journal" ]
    [ "${lines[4]}" = capacity ]
    [ "${lines[5]}" = "drop-oldest drop-newest" ]
    [ "${lines[6]}" = overflow= ]
    [ "${lines[7]}" = --watch ]
    [ "${lines[8]}" = 'we\$\(rm\ -rf\)' ]
    [ "${#lines[@]}" = 9 ]
}

@test "help and completion know every setting of the daemon" {
    "$IPCFS" mkdir jobs
    "$IPCFS" ctl --help >"$BATS_TEST_TMPDIR/ctl"
    "$IPCFS" mkdir --help >"$BATS_TEST_TMPDIR/mkdir"
    "$IPCFS" complete mkdir --set "" | tr '\0' '\n' >"$BATS_TEST_TMPDIR/set"
    "$IPCFS" complete ctl jobs "" | tr '\0' '\n' >"$BATS_TEST_TMPDIR/keys"
    while read -r key _; do
        for help in ctl mkdir; do
            grep -A1 "^  $key  *[^ ]" "$BATS_TEST_TMPDIR/$help" | grep -q '^      [^ ]'
        done
        grep -qx "$key=" "$BATS_TEST_TMPDIR/set"
        grep -qx "$key" "$BATS_TEST_TMPDIR/keys"
    done <"$MNT/jobs/ctl"
    [ "$("$IPCFS" complete ctl jobs durable "" | tr '\0' ' ')" = " off async sync " ]
    [ "$("$IPCFS" complete ctl jobs capacity "" | tr '\0' ' ')" = " 1000 " ]
    [ "$("$IPCFS" complete mkdir --type s | tr '\0' ' ')" = " sync stream " ]
    stop_daemon
    "$IPCFS" ctl --help | grep -q '^Settings: .*ipcfs up'
}
