# inotify, the notify file and signals: who waits for an arrival hears of it, whatever its way.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

# watch FILE...: inotifywait in the background, one "EVENT NAME" a line in $SEEN.
watch() {
    SEEN=$BATS_TEST_TMPDIR/seen
    bg inotifywait -m --format '%e %f' "$@" >"$SEEN" 2>"$BATS_TEST_TMPDIR/watching"
    wait_until grep -q "Watches established" "$BATS_TEST_TMPDIR/watching"
}
# modified COUNT: at least that many MODIFY events of queue were seen.
modified() { [ "$(grep -c '^MODIFY queue' "$SEEN")" -ge "$1" ]; }

@test "inotifywait on the channel sees each echo" {
    watch "$MNT/jobs"
    for i in 1 2 3 4 5; do
        echo "$i" >"$MNT/jobs/queue"
        wait_until modified "$i"
    done
}

@test "arrivals through priority/ and framed/ ring at the queue" {
    watch "$MNT/jobs"
    local count=0
    for level in critical high normal low; do
        : >"$SEEN"
        echo x >"$MNT/jobs/priority/$level"
        wait_until modified 1
    done
    : >"$SEEN"
    frame hello >"$MNT/jobs/framed/queue"
    wait_until modified 1
}

@test "arrivals that a waiting reader takes at once are seen too" {
    watch "$MNT/jobs"
    bg cat "$MNT/jobs/stream" >/dev/null
    wait_until status_is jobs waiting 1
    echo x >"$MNT/jobs/queue"
    wait_until modified 1
    : >"$SEEN"
    echo x >"$MNT/jobs/priority/low"
    wait_until modified 1
}

@test "a message held by a pause is announced when it ends" {
    echo held >"$MNT/jobs/queue"
    echo pause >"$MNT/jobs/ctl"
    watch "$MNT/jobs"
    : >"$SEEN"
    echo resume >"$MNT/jobs/ctl"
    wait_until modified 1
}

@test "the classical loop of inotifywait and drain loses nothing" {
    touch "$BATS_TEST_TMPDIR/got"
    mkfifo "$BATS_TEST_TMPDIR/events"
    bg bash -c 'while read -r _; do cat "$1"; done <"$2"' bash "$MNT/jobs/queue" \
        "$BATS_TEST_TMPDIR/events" >>"$BATS_TEST_TMPDIR/got"
    bg inotifywait -m -q -e modify --format x "$MNT/jobs/queue" >"$BATS_TEST_TMPDIR/events"
    started() { echo start >"$MNT/jobs/queue"; [ -s "$BATS_TEST_TMPDIR/got" ]; }
    wait_until started
    for i in {1..100}; do
        case $((i % 3)) in
        0) echo "$i" >"$MNT/jobs/queue" ;;
        1) echo "$i" >"$MNT/jobs/priority/high" ;;
        2) echo "$i" >"$MNT/jobs/priority/low" ;;
        esac
    done
    complete() { [ "$(grep -vc start "$BATS_TEST_TMPDIR/got")" = 100 ]; }
    wait_until complete
    equal "$(grep -v start "$BATS_TEST_TMPDIR/got" | sort -n)" "$(seq 100)"
}

@test "notify tells of arrivals, one line an event" {
    bg cat "$MNT/jobs/notify" >"$BATS_TEST_TMPDIR/events"
    listening() { echo x >"$MNT/jobs/queue"; grep -q arrival "$BATS_TEST_TMPDIR/events"; }
    wait_until listening
    echo urgent >"$MNT/jobs/priority/critical"
    wait_until grep -Eq '^[0-9]+ [0-9]+ arrival 255 [0-9]+' "$BATS_TEST_TMPDIR/events"
    echo pause >"$MNT/jobs/ctl"
    wait_until grep -q ' state ' "$BATS_TEST_TMPDIR/events"
    echo resume >"$MNT/jobs/ctl"
    cat "$MNT/jobs/queue" >/dev/null
    wait_until grep -q ' drained ' "$BATS_TEST_TMPDIR/events"
    # The sequence counts up without a gap.
    equal "$(cut -d' ' -f1 "$BATS_TEST_TMPDIR/events")" \
        "$(seq "$(head -n 1 "$BATS_TEST_TMPDIR/events" | cut -d' ' -f1)" "$(tail -n 1 "$BATS_TEST_TMPDIR/events" | cut -d' ' -f1)")"
}

@test "bash reads events line by line" {
    exec 7<"$MNT/jobs/notify"
    echo x >"$MNT/jobs/queue"
    echo y >"$MNT/jobs/queue"
    read -r -t 10 seq1 _ event1 _ <&7
    read -r -t 10 seq2 _ event2 _ <&7
    exec 7<&-
    equal "$event1 $event2 $((seq2 - seq1))" "arrival arrival 1"
}

@test "the marks and the end of a channel are events" {
    bg cat "$MNT/jobs/notify" >"$BATS_TEST_TMPDIR/events"
    listening() { echo x >"$MNT/jobs/queue"; grep -q arrival "$BATS_TEST_TMPDIR/events"; }
    wait_until listening
    echo purge >"$MNT/jobs/ctl"
    echo "capacity 10" >"$MNT/jobs/ctl"
    for i in {1..8}; do echo "$i" >"$MNT/jobs/queue"; done
    wait_until grep -q ' high ' "$BATS_TEST_TMPDIR/events"
    cat "$MNT/jobs/queue" >/dev/null
    wait_until grep -q ' low ' "$BATS_TEST_TMPDIR/events"
    echo "ttl 10ms" >"$MNT/jobs/ctl"
    echo old >"$MNT/jobs/queue"
    wait_until grep -q ' expired ' "$BATS_TEST_TMPDIR/events"
    wait_until status_is jobs depth 0
    rmdir "$MNT/jobs"
    wait_until grep -q ' removed ' "$BATS_TEST_TMPDIR/events"
    wait_until is_gone "$BG_PID"
}

@test "a filter written to notify holds for that open file" {
    python3 - "$MNT/jobs" <<'PY'
import os, select, sys
jobs = sys.argv[1]
def listen(filter=None):
    fd = os.open(f"{jobs}/notify", os.O_RDWR | os.O_NONBLOCK)
    if filter:
        os.write(fd, filter.encode())
    return fd
everything, urgent, states = listen(), listen("min-priority=high events=arrival\n"), listen("events=state\n")
def send(file, text):
    with open(f"{jobs}/{file}", "w") as out:
        out.write(text)
def events(fd):
    got = []
    while True:
        if not select.select([fd], [], [], 0.1)[0]:
            return got
        got.append(os.read(fd, 4096).decode().split())
send("queue", "x"); send("priority/high", "x"); send("priority/low", "x"); send("ctl", "pause\n"); send("ctl", "resume\n")
assert [(e[2], e[3]) for e in events(urgent)] == [("arrival", "192")]
assert {e[2] for e in events(states)} == {"state"}
assert [e[3] for e in events(everything) if e[2] == "arrival"] == ["128", "192", "0"]
for wrong in "events=nonsense", "min-priority=huge", "rate=fast", "signal SIGNOTHING", "gibberish":
    try:
        os.write(everything, wrong.encode())
        raise SystemExit(f"accepted: {wrong}")
    except OSError as error:
        assert error.errno == 22, (wrong, error)
PY
}

@test "a slow listener is told how much it missed, and misses urgent events last" {
    python3 - "$MNT/jobs" <<'PY'
import os, re, sys
jobs = sys.argv[1]
with open(f"{jobs}/ctl", "w") as ctl:
    ctl.write("capacity 1000000\n")
listener = os.open(f"{jobs}/notify", os.O_RDWR | os.O_NONBLOCK)
os.write(listener, b"events=arrival\n")
out = os.open(f"{jobs}/queue", os.O_WRONLY)
critical = os.open(f"{jobs}/priority/critical", os.O_WRONLY)
total = 20000
for i in range(total):
    os.write(critical if i == 5000 else out, b"x")
seen = lost = urgent = 0
while True:
    try:
        line = os.read(listener, 4096).decode()
    except BlockingIOError:
        break
    fields = line.split()
    if fields[2] == "overflow":
        lost += int(re.search(r"lost=(\d+)", line)[1])
    else:
        assert fields[2] == "arrival", line
        seen += 1
        urgent += fields[3] == "255"
assert lost > 0, "nothing was lost: make the burst longer"
assert seen + lost == total, (seen, lost)
assert urgent == 1
with open(f"{jobs}/ctl", "w") as ctl:
    ctl.write("purge\n")
PY
}

@test "a rate limits the events of a listener" {
    python3 - "$MNT/jobs" <<'PY'
import os, sys
jobs = sys.argv[1]
listener = os.open(f"{jobs}/notify", os.O_RDWR | os.O_NONBLOCK)
os.write(listener, b"events=arrival rate=1/s\n")
out = os.open(f"{jobs}/queue", os.O_WRONLY)
for i in range(500):
    os.write(out, b"x")
lines = []
while True:
    try:
        lines.append(os.read(listener, 4096))
    except BlockingIOError:
        break
arrivals = [line for line in lines if b" arrival " in line]
assert 1 <= len(arrivals) < 20, len(arrivals)
PY
}

@test "a bash trap runs at an arrival" {
    cat >"$BATS_TEST_TMPDIR/listener" <<'SH'
trap 'echo arrival' USR1
echo "signal SIGUSR1 events=arrival" >"$1/notify"
echo ready
while :; do read -r -t 0.05 _ <>"$2"; done
SH
    mkfifo "$BATS_TEST_TMPDIR/never"
    bg bash "$BATS_TEST_TMPDIR/listener" "$MNT/jobs" "$BATS_TEST_TMPDIR/never" >"$BATS_TEST_TMPDIR/out"
    wait_until grep -q ready "$BATS_TEST_TMPDIR/out"
    echo x >"$MNT/jobs/queue"
    wait_until grep -q arrival "$BATS_TEST_TMPDIR/out"
}

@test "the signal's siginfo names the channel" {
    mkdir "$MNT/other"
    python3 - "$MNT" <<'PY'
import ctypes, os, signal, struct, sys
mount = sys.argv[1]
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN})
libc = ctypes.CDLL(None, use_errno=True)
def wait():
    mask = (ctypes.c_ulong * 16)()
    for number in signal.SIGUSR1, signal.SIGRTMIN:
        mask[(number - 1) // 64] |= 1 << ((number - 1) % 64)
    info = ctypes.create_string_buffer(128)
    limit = (ctypes.c_long * 2)(10, 0)
    number = libc.sigtimedwait(mask, info, limit)
    assert number > 0, os.strerror(ctypes.get_errno())
    return number, struct.unpack_from("q", info.raw, 24)[0]
def register(channel, text):
    with open(f"{mount}/{channel}/notify", "w") as notify:
        notify.write(text)
def send(channel):
    with open(f"{mount}/{channel}/queue", "w") as queue:
        queue.write("x")
register("jobs", "signal SIGUSR1 events=arrival\n")
register("other", f"signal SIGRTMIN events=arrival\n")
send("jobs")
first, jobs = wait()
send("other")
second, other = wait()
assert (first, second) == (signal.SIGUSR1, signal.SIGRTMIN)
assert jobs != 0 and other != 0 and jobs != other, (jobs, other)
PY
}

@test "a registration ends with its process, and other users are not signalled" {
    bg python3 -c '
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("got", flush=True))
open(sys.argv[1], "w").write("signal SIGUSR1\n")
print("ready", flush=True)
while True: signal.pause()' "$MNT/jobs/notify" >"$BATS_TEST_TMPDIR/out"
    wait_until grep -q ready "$BATS_TEST_TMPDIR/out"
    echo x >"$MNT/jobs/queue"
    wait_until grep -q got "$BATS_TEST_TMPDIR/out"
    kill -KILL "$BG_PID"
    wait_until is_gone "$BG_PID"
    for i in {1..20}; do echo x >"$MNT/jobs/queue"; done
    kill -0 "$DAEMON_PID"
}
