#!/usr/bin/env bats
# The command ipcfs: publishing and subscribing, leases, dead letters, and `work`, as a shell user
# meets them. Nothing here is timed: what waits is waited for with a deadline far beyond any slowness.

bats_require_minimum_version 1.5.0
load helper

setup() {
    start_daemon
    export IPCFS_MOUNT=$MNT
    cd "$BATS_TEST_TMPDIR" || return
}

teardown() {
    cd /
    clean_up
}

field() { python3 -c 'import json,sys; d=json.load(sys.stdin); print(eval("d"+sys.argv[1]))' "$1"; }
has_readers() { status_is "$1" readers "$2"; }
has_depth() { status_is "$1" depth "$2"; }
has_leased() { status_is "$1" leased "$2"; }
has_line() { grep -qx "$2" "$1"; }

# ends_with CODE PID: that job of this shell does; `run` could not wait for it.
ends_with() {
    local code=0
    wait "$2" || code=$?
    equal "$code" "$1"
}

# ---- topics ---------------------------------------------------------------------------------------

@test "sub prints what is published from then on" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" -q pub logs missed
    bg "$IPCFS" sub logs -n 2 --newline >out
    local subscriber=$BG_PID
    wait_until status_is logs subscribers 1
    "$IPCFS" pub logs one two
    wait "$subscriber"
    equal "$(cat out)" $'one\ntwo'
}

@test "a named subscription keeps what is published while nobody reads it" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name alice --create -n 0
    "$IPCFS" pub logs one two three
    "$IPCFS" sub logs --name alice -n 1 --newline >out
    equal "$(cat out)" one
    # It is as good as a channel to whatever receives.
    equal "$("$IPCFS" recv logs/subs/alice)" two
    equal "$("$IPCFS" sub logs --name alice -n 0)" three
    run -3 "$IPCFS" sub logs --name alice -n 1 --timeout 0
}

@test "two who read one subscription share it, two subscriptions do not" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name a --create -n 0
    "$IPCFS" sub logs --name b --create -n 0
    seq 10 | "$IPCFS" pub logs --lines
    "$IPCFS" sub logs --name a -n 4 --newline >first
    "$IPCFS" sub logs --name a -n 0 --newline >rest
    cat first rest | cmp - <(seq 10)
    "$IPCFS" sub logs --name b -n 0 --newline | cmp - <(seq 10)
}

@test "a filter lets through what it says, and one that is wrong is explained and makes nothing" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name pager --create --filter 'priority high-critical' --filter 'method disk*' -n 0
    "$IPCFS" pub logs -p high --method disk-full yes
    "$IPCFS" pub logs -p high --method login no
    "$IPCFS" pub logs --method disk-full no
    equal "$("$IPCFS" sub logs --name pager -n 0)" yes
    run -1 "$IPCFS" sub logs --name wrong --create --filter 'colour blue' -n 0
    [[ "$output" == *colour* ]]
    run ! test -e "$MNT/logs/subs/wrong"
    run -1 "$IPCFS" sub logs --name pager --filter 'colour blue' -n 0
    [[ "$(cat "$MNT/logs/subs/pager/filter")" == *"priority"* ]]
    "$IPCFS" sub logs --name pager --filter '' -n 0
    "$IPCFS" pub logs anything
    equal "$("$IPCFS" sub logs --name pager -n 0)" anything
}

@test "sub --recursive gets what is published below" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" mkdir logs/web --type topic
    "$IPCFS" sub logs --name all --create --recursive -n 0
    "$IPCFS" pub logs/web 'GET /'
    equal "$("$IPCFS" sub logs --name all -n 0)" 'GET /'
}

@test "pub --group reaches the subscriptions of a multicast that name the group" {
    "$IPCFS" mkdir orders --type multicast
    "$IPCFS" sub orders --name europe --create --filter 'group eu' -n 0
    "$IPCFS" sub orders --name america --create --filter 'group us,ca' -n 0
    "$IPCFS" pub orders --group eu one
    "$IPCFS" pub orders --group ca two
    "$IPCFS" pub orders --group eu,us three
    equal "$("$IPCFS" sub orders --name europe -n 0 --newline)" $'one\nthree'
    equal "$("$IPCFS" sub orders --name america -n 0 --newline)" $'two\nthree'
}

@test "sub --list shows subscriptions and their filters, --remove removes one that is empty" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name alice --create -n 0
    "$IPCFS" sub logs --name bob --create --filter 'prefix x' -n 0
    "$IPCFS" pub logs hello
    "$IPCFS" sub logs --list --json >json
    equal "$(field '[0]["subscription"]' <json) $(field '[0]["depth"]' <json)" 'alice 1'
    equal "$(field '[1]["filter"].strip()' <json)" 'prefix x'
    run -0 "$IPCFS" sub logs --list
    [[ "$output" == *alice*bob* ]]
    run -1 "$IPCFS" sub logs --name alice --remove
    [[ "$output" == *purge* ]]
    "$IPCFS" ctl logs/subs/alice purge
    "$IPCFS" sub logs --name alice --remove
    run ! test -e "$MNT/logs/subs/alice"
    run -1 "$IPCFS" sub logs --name alice -n 0
    [[ "$output" == *"--create"* ]]
}

@test "a large payload reaches each subscriber, also after it was published" {
    "$IPCFS" mkdir films --type topic
    "$IPCFS" sub films --name a --create -n 0
    "$IPCFS" sub films --name b --create -n 0
    head -c 3000000 /dev/urandom >film
    "$IPCFS" pub films --file film
    "$IPCFS" sub films --name a -n 1 -o a
    "$IPCFS" lease films/subs/b -o b
    cmp a film
    cmp b film
}

@test "pub and sub say what to do where there is no topic" {
    "$IPCFS" mkdir jobs
    run -1 "$IPCFS" pub jobs x
    [[ "$output" == *"ipcfs send jobs"* ]]
    run -1 "$IPCFS" sub jobs
    [[ "$output" == *"ctl jobs type topic"* ]]
    run -2 "$IPCFS" sub jobs --create
    run -2 "$IPCFS" sub jobs --name a/b --create
    "$IPCFS" ctl jobs type topic
    run -1 "$IPCFS" lease jobs
    [[ "$output" == *subs/NAME* ]]
}

@test "rm -r removes a topic with its subscriptions, and what they hold only with -f" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name alice --create -n 0
    "$IPCFS" pub logs hello
    run -1 "$IPCFS" rm logs
    [[ "$output" == *"rm -r"* ]]
    run -1 "$IPCFS" rm -r logs
    "$IPCFS" rm -rf logs
    run ! test -e "$MNT/logs"
}

# ---- leases ---------------------------------------------------------------------------------------

@test "lease prints a message and acknowledges it" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two
    equal "$("$IPCFS" lease jobs)" one
    equal "$("$IPCFS" lease jobs --json | field '["body"]')" two
    run -3 "$IPCFS" lease jobs --timeout 0
    run -3 "$IPCFS" lease jobs --timeout 20ms
    [[ "$output" == *"no message within"* ]]
}

@test "lease --nack gives it back, flagged, and after max-deliveries it is a dead letter" {
    "$IPCFS" mkdir jobs --set max-deliveries=2
    "$IPCFS" send jobs one two
    equal "$("$IPCFS" lease jobs --nack --json | field '["redelivered"]')" False
    equal "$("$IPCFS" lease jobs --nack --json | field '["redelivered"]')" True
    equal "$("$IPCFS" lease jobs)" two
    "$IPCFS" dead jobs --json >json
    equal "$(field '[0]["size"]' <json)" 3
    run -0 "$IPCFS" dead jobs
    [[ "$output" == *sequence* ]]
    "$IPCFS" redrive jobs --json >json
    equal "$(field '["redriven"]' <json)" 1
    equal "$("$IPCFS" recv jobs)" one
    equal "$("$IPCFS" dead jobs --json)" '[]'
}

@test "lease --nack=DELAY keeps it away for so long" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    equal "$("$IPCFS" lease jobs --nack=1h)" one
    run -3 "$IPCFS" lease jobs --timeout 0
    run -2 "$IPCFS" lease jobs --nack=soon
    "$IPCFS" send jobs two
    equal "$("$IPCFS" lease jobs --nack=10ms)" two
    equal "$("$IPCFS" lease jobs --timeout 20s)" two
}

@test "lease --dead buries, dead --take digs up, byte for byte" {
    "$IPCFS" mkdir jobs
    printf 'a\0b' | "$IPCFS" send jobs
    head -c 2500000 /dev/urandom >large
    "$IPCFS" send jobs --file large
    "$IPCFS" send jobs third
    "$IPCFS" lease jobs --dead >/dev/null
    "$IPCFS" lease jobs --dead >/dev/null
    "$IPCFS" lease jobs --dead >/dev/null
    "$IPCFS" dead jobs --take -n 1 | cmp - <(printf 'a\0b')
    "$IPCFS" dead jobs --take -n 1 -o copy
    cmp copy large
    equal "$("$IPCFS" dead jobs --take --json | field '["body"]')" third
    run -0 "$IPCFS" dead jobs --take
    [ -z "$output" ]
}

@test "what is held is nobody else's, and comes back when its holder is killed" {
    "$IPCFS" mkdir jobs --set lease=600ms
    "$IPCFS" send jobs mine
    bg "$IPCFS" lease jobs --hold 1h >out
    local holder=$BG_PID
    wait_until has_line out mine
    # Another lease, taken later and not renewed, runs out: this one does not.
    "$IPCFS" send jobs other
    exec {lease}<>"$MNT/jobs/lease"
    head -c 5 <&"$lease" >/dev/null
    wait_until has_depth jobs 1
    equal "$("$IPCFS" recv jobs --timeout 0)" other
    exec {lease}>&-
    run -3 "$IPCFS" recv jobs --timeout 0
    kill -9 "$holder"
    equal "$("$IPCFS" recv jobs --timeout 20s --json | field '["redelivered"]')" True
}

@test "a message that could not be printed comes back" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    run ! bash -c '"$1" lease jobs >/dev/full' _ "$IPCFS"
    equal "$("$IPCFS" recv jobs --timeout 20s)" one
}

@test "lease --command acknowledges what succeeds" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    run -1 "$IPCFS" -q lease jobs --command 'cat; exit 3'
    equal "$output" one
    equal "$("$IPCFS" lease jobs --command 'tr a-z A-Z')" ONE
    run -3 "$IPCFS" -q lease jobs --timeout 0
}

@test "status, ls and the summary know of leases and dead letters" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two three
    "$IPCFS" lease jobs --dead >/dev/null
    bg "$IPCFS" lease jobs --hold 1h >out
    wait_until has_leased jobs 1
    equal "$("$IPCFS" status jobs --json | field '["dead"]')" 1
    equal "$("$IPCFS" status --json | field '["leased"]')" 1
    equal "$("$IPCFS" ls -l --json | field '[0]["dead"]')" 1
    run -1 "$IPCFS" rm jobs
    [[ "$output" == *"1 leased, 1 dead"* ]]
    "$IPCFS" rm -f jobs
}

# ---- work -----------------------------------------------------------------------------------------

@test "work runs the command for each message and acknowledges on success" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two three
    "$IPCFS" work jobs --drain -- tr a-z A-Z >out
    equal "$(cat out)" ONETWOTHREE
    equal "$(value depth "$MNT/jobs/status") $(value leased "$MNT/jobs/status")" '0 0'
}

@test "work gives back what fails, until it is a dead letter, and says so" {
    "$IPCFS" mkdir jobs --set max-deliveries=3
    "$IPCFS" send jobs bad
    run -1 --separate-stderr "$IPCFS" work jobs --drain --json -- sh -c 'exit 7'
    equal "$(field '["nacked"]' <<<"$output") $(field '["acked"]' <<<"$output")" '3 0'
    [[ "$stderr" == *"exit code 7"* ]]
    equal "$("$IPCFS" dead jobs --take)" bad
    "$IPCFS" send jobs hopeless
    run -1 "$IPCFS" -q work jobs --once --json --dead-on 65,66 -- sh -c 'exit 66'
    equal "$(field '["dead"]' <<<"$output")" 1
    equal "$("$IPCFS" dead jobs --take)" hopeless
}

@test "work tells its command about the message" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs -p high --type text/plain --method draw x
    IPCFS_METHOD=outer "$IPCFS" work jobs --once -- sh -c 'env | grep ^IPCFS_ | sort' >out
    has_line out "IPCFS_CHANNEL=jobs"
    has_line out "IPCFS_PATH=$MNT/jobs"
    has_line out "IPCFS_MOUNT=$MNT"
    has_line out "IPCFS_PRIORITY=192"
    has_line out "IPCFS_SEQUENCE=1"
    has_line out "IPCFS_REDELIVERED=0"
    has_line out "IPCFS_SENDER_UID=$(id -u)"
    has_line out "IPCFS_CONTENT_TYPE=text/plain"
    has_line out "IPCFS_METHOD=draw"
}

@test "work -j runs so many commands at once" {
    "$IPCFS" mkdir jobs
    seq 8 | "$IPCFS" send jobs --lines
    # Each waits until four are there: with fewer at once it would wait for ever.
    mkdir here
    cat >meet <<'SCRIPT'
n=$(cat)
touch "here/$n"
for i in $(seq 2000); do
    [ "$(ls here | wc -l)" -ge 4 ] && exit 0
    sleep 0.01
done
exit 1
SCRIPT
    "$IPCFS" work jobs -j 4 -n 8 -- sh meet
    equal "$(ls here | wc -l)" 8
}

@test "work renews the lease of a command that takes longer" {
    "$IPCFS" mkdir jobs --set lease=600ms
    "$IPCFS" send jobs slow
    "$IPCFS" work jobs --once -- sh -c 'cat >>runs; sleep 2'
    equal "$(cat runs)" slow
    run -3 "$IPCFS" recv jobs --timeout 0
}

@test "a worker that was stopped too long loses its lease, and its command is stopped" {
    "$IPCFS" mkdir jobs --set lease=600ms
    "$IPCFS" send jobs contested
    bg "$IPCFS" work jobs --once -- sh -c 'echo $$ >command; exec sleep 1000' 2>err
    local worker=$BG_PID
    wait_until test -s command
    kill -STOP "$worker"
    equal "$("$IPCFS" recv jobs --timeout 20s)" contested
    kill -CONT "$worker"
    wait_until is_gone "$(cat command)"
    ends_with 1 "$worker"
    grep -q 'lease is lost' err
}

@test "kill -9 of a worker ends its command and gives its message back" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    bg "$IPCFS" work jobs -- sh -c 'echo $$ >command; exec sleep 1000'
    wait_until test -s command
    kill -9 "$BG_PID"
    wait_until is_gone "$(cat command)"
    equal "$("$IPCFS" recv jobs --timeout 20s)" one
}

@test "SIGTERM lets the running command finish, and takes no more" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one two
    bg "$IPCFS" -q work jobs -- sh -c 'touch started; until [ -e go ]; do sleep 0.01; done; cat >>done'
    local worker=$BG_PID
    wait_until test -e started
    kill -TERM "$worker"
    touch go
    wait "$worker"
    equal "$(cat done)" one
    equal "$("$IPCFS" recv jobs)" two
    run -3 "$IPCFS" recv jobs --timeout 0
}

@test "a second SIGTERM stops the command, and its message is given back" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    bg "$IPCFS" work jobs -- sh -c 'echo $$ >command; exec sleep 1000' 2>err
    local worker=$BG_PID
    wait_until test -s command
    kill -TERM "$worker"
    wait_until grep -q finishing err
    kill -TERM "$worker"
    ends_with 143 "$worker"
    wait_until is_gone "$(cat command)"
    equal "$("$IPCFS" recv jobs --timeout 20s)" one
}

@test "work --limit stops a command that hangs, whatever it does about SIGTERM" {
    "$IPCFS" mkdir jobs --set max-deliveries=1
    "$IPCFS" send jobs one
    run -1 "$IPCFS" work jobs --once --limit 50ms -- sh -c 'trap "" TERM; while :; do sleep 0.1; done'
    [[ "$output" == *"over its limit"* ]]
    equal "$("$IPCFS" dead jobs --take)" one
}

@test "work says that the command cannot be run, and gives the message back" {
    "$IPCFS" mkdir jobs
    "$IPCFS" send jobs one
    run -1 "$IPCFS" work jobs -- no-such-program-anywhere
    [[ "$output" == *"no-such-program-anywhere"* ]]
    equal "$("$IPCFS" recv jobs --timeout 20s)" one
    run -2 "$IPCFS" work jobs
    run -2 "$IPCFS" work jobs -j 0 -- true
}

@test "work ends with 3 when no message comes, and with 4 when the channel goes" {
    "$IPCFS" mkdir jobs
    run -3 "$IPCFS" work jobs --timeout 20ms -- true
    [[ "$output" == *"no message within"* ]]
    run -0 "$IPCFS" work jobs --drain -- true
    bg "$IPCFS" work jobs -- true 2>err
    wait_until has_readers jobs 1
    "$IPCFS" rm jobs
    ends_with 4 "$BG_PID"
}

@test "work on a subscription: each message to one of its workers" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name crew --create -n 0
    bg "$IPCFS" -q work logs/subs/crew --timeout 20s -n 10 -- sh -c 'echo "$(cat)" >>out'
    local one=$BG_PID
    bg "$IPCFS" -q work logs/subs/crew --timeout 20s -n 10 -- sh -c 'echo "$(cat)" >>out'
    local two=$BG_PID
    wait_until has_readers logs/subs/crew 2
    seq 20 | "$IPCFS" pub logs --lines
    wait "$one"
    wait "$two"
    sort -n out | cmp - <(seq 20)
}

@test "work goes on when the daemon was killed and started again, and does again what it may have lost" {
    [ "$(value survives "$MNT/kern/ipc/version")" = yes ] || skip "nobody starts this daemon again"
    "$IPCFS" mkdir jobs --set durable=sync --set capacity=1000
    seq 40 | "$IPCFS" send jobs --lines
    bg "$IPCFS" work jobs -j 2 --timeout 20s -- sh -c 'n=$(cat); sleep 0.02; echo "$n" >>out' 2>err
    local worker=$BG_PID
    wait_until test -s out
    kill -9 "$(value pid "$MNT/kern/ipc/version")"
    all_done() { [ "$(sort -un out | wc -l)" = 40 ]; }
    wait_until all_done
    kill -TERM "$worker"
    wait "$worker"
    equal "$(value depth "$MNT/jobs/status")" 0
}

@test "work passes on large messages and those of a pool" {
    "$IPCFS" mkdir films
    head -c 3000000 /dev/urandom >film
    "$IPCFS" send films --file film
    "$IPCFS" work films --once -- sh -c 'cat >copy'
    cmp copy film
}

@test "completion offers the commands of delivery, subscriptions and their values" {
    "$IPCFS" mkdir logs --type topic
    "$IPCFS" sub logs --name alice --create -n 0
    PATH=${IPCFS%/*}:$PATH run -0 bash -c '
        source "$1"
        complete_words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
            _ipcfs
            echo "${COMPREPLY[*]}"
        }
        complete_words ipcfs re
        complete_words ipcfs sub logs --name al
        complete_words ipcfs recv logs/subs/
        complete_words ipcfs work logs/subs/alice -j 2 -- tru
        complete_words ipcfs ctl logs durable a
        complete_words ipcfs lease logs --h
    ' _ "$BATS_TEST_DIRNAME/../../client/completion/ipcfs.bash"
    equal "${lines[0]}" 'recv redrive'
    equal "${lines[1]}" alice
    equal "${lines[2]}" logs/subs/alice
    [[ " ${lines[3]} " == *" true "* ]]
    equal "${lines[4]}" async
    [[ "${lines[5]}" == *--hold* ]]
}
