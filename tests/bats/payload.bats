# Large messages and shared memory, as a shell user and a Python script meet them: put, payload/, share/,
# and what the command tells of them.
load helper
setup() { start_daemon; mkdir "$MNT/video"; export IPCFS_MOUNT=$MNT; FILM=$BATS_TEST_TMPDIR/film; }
teardown() { clean_up; }

# film BYTES: that much of noise in $FILM.
film() { head -c "$1" /dev/urandom >"$FILM"; }
queued() { value depth "$MNT/video/status"; }
without_passthrough() {
    stop_daemon
    start_daemon --set fuse.passthrough=off
    mkdir "$MNT/video"
    grep -qx 'why-not-passthrough it is turned off' "$MNT/kern/ipc/version"
}
# said KEY FILE: a key of JSON.
said() { python3 -c 'import json,sys; print(eval("d" + sys.argv[1], {"d": json.load(open(sys.argv[2]))}))' "$1" "$2"; }

# ---- put ---------------------------------------------------------------------------------------

copies_a_file() {
    film 3000001
    cp "$FILM" "$MNT/video/put"
    equal "$(queued)" 1
    equal "$(column "$MNT/video/peek" size | wc -l)" 1
    cat "$MNT/video/next" | cmp - "$FILM"
    dd if="$FILM" of="$MNT/video/put" bs=64k status=none
    dd if="$MNT/video/next" of="$BATS_TEST_TMPDIR/got" bs=10000 status=none
    cmp "$BATS_TEST_TMPDIR/got" "$FILM"
}
@test "what cp writes to put is one message, and cat and dd give it back" { copies_a_file; }
@test "what cp writes to put is one message, and cat and dd give it back, without passthrough" {
    without_passthrough
    copies_a_file
}

@test "everything between open and close is one message, whoever of the family writes it" {
    { echo first; (echo second; bash -c 'echo third'); /bin/echo fourth; } >"$MNT/video/put"
    equal "$(queued)" 1
    equal "$(cat "$MNT/video/next")" $'first\nsecond\nthird\nfourth'
}

@test "nothing written is no message" {
    : >"$MNT/video/put"
    equal "$(queued)" 0
}

@test "a writer that is killed leaves nothing" {
    for signal in KILL TERM INT PIPE; do
        run python3 - "$MNT/video/put" "$signal" <<'PY'
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
put = os.open(sys.argv[1], os.O_WRONLY)
os.write(put, b"x" * 200000)
os.kill(os.getpid(), getattr(signal, "SIG" + sys.argv[2]))
PY
        [ "$status" -gt 128 ]
        equal "$(queued)" 0
    done
}

too_long() {
    echo 'max-payload 1M' >"$MNT/video/ctl"
    film 4000000
    run cp "$FILM" "$MNT/video/put"
    [ "$status" != 0 ]
    equal "$(queued)" 0
    equal "$(value last-error "$MNT/video/status")" "put: larger than max-payload"
    truncate -s 1M "$FILM"
    cp "$FILM" "$MNT/video/put"
    equal "$(queued)" 1
}
@test "what is longer than max-payload is refused, and nothing of it stays" { too_long; }
@test "what is longer than max-payload is refused, and nothing of it stays, without passthrough" {
    without_passthrough
    too_long
    truncate -s 4M "$FILM"
    fails_with "Message too long" dd if="$FILM" of="$MNT/video/put" bs=1M
}

@test "memory for payloads is limited by user, and by what the machine has left" {
    echo 'limits.user.1234.payload-bytes 1M' >"$MNT/kern/ipc/config"
    chmod 777 "$MNT/video"
    chmod 666 "$MNT/video/put"
    film 3000000
    chmod 644 "$FILM"
    run as_user 1234 dd if=/dev/zero of="$MNT/video/put" bs=1M count=3
    [ "$status" != 0 ]
    equal "$(queued)" 0
    [[ "$(value last-error "$MNT/video/status")" == *"limit of payload bytes"* ]]
    equal "$(awk -F '\t' '$2 == 1234 && $3 == "payload_bytes" { print $4 }' "$MNT/kern/ipc/stats/resources")" 0
    echo 'payload.reserve 1000G' >"$MNT/kern/ipc/config"
    fails_with "No space left on device" cp "$FILM" "$MNT/video/put"
    fails_with "No space left on device" truncate -s 1M "$MNT/video/share/frames"
    echo 'payload.reserve 1M' >"$MNT/kern/ipc/config"
    cp "$FILM" "$MNT/video/put"
}

@test "two writers of put at once make two messages, each its own" {
    python3 - "$MNT/video" <<'PY'
import os, sys
put = sys.argv[1] + "/put"
writers = [os.open(put, os.O_WRONLY) for _ in range(3)]
for turn in range(100):
    for number, writer in enumerate(writers):
        os.write(writer, bytes([number]) * 4096)
assert len({os.stat(put).st_ino} | {os.fstat(w).st_ino for w in writers}) == 1
for writer in writers: os.close(writer)
got = []
for _ in writers:
    with open(sys.argv[1] + "/next", "rb") as file: got.append(file.read())
# Of one process' several opens, the earlier closed may be queued when they are released: in any order.
assert sorted(got) == [bytes([number]) * 409600 for number in range(3)], [len(g) for g in got]
PY
}

# ---- payload/ ----------------------------------------------------------------------------------

@test "a payload is a file as long as it is queued, and nobody writes to it" {
    film 200000
    cp "$FILM" "$MNT/video/put"
    local file
    file=$(echo "$MNT"/video/payload/*)
    cmp "$file" "$FILM"
    equal "$(stat -c '%s %a' "$file")" "200000 444"
    fails_with "Read-only file system" dd if=/dev/zero of="$file" conv=notrunc
    fails_with "Read-only file system" truncate -s 1 "$file"
    fails_with "Operation not permitted" chmod 600 "$file"
    chmod 666 "$file"
    equal "$(stat -c %a "$file")" 444
    fails_with "Operation not permitted" setfacl -m u:1234:r "$file"
    fails_with "Operation not permitted" setfattr -n user.note -v x "$file"
    fails_with "Operation not permitted" setfacl -m u:1234:rx "$MNT/video/payload"
    fails_with "Operation not permitted" rm -f "$file"
    python3 - "$file" <<'PY'
import ctypes, errno, mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
try: mmap.mmap(file, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE)
except PermissionError: pass
else: sys.exit("mapped for writing")
memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, file, 0)
assert libc.mprotect(at, 4096, mmap.PROT_READ | mmap.PROT_WRITE) == -1
assert ctypes.get_errno() == errno.EACCES
for flags in os.O_WRONLY, os.O_RDWR:
    for path in sys.argv[1], f"/proc/self/fd/{file}":
        try: os.open(path, flags)
        except OSError as error: assert error.errno == errno.EROFS, error
        else: sys.exit("opened for writing")
PY
    cat "$MNT/video/next" >/dev/null
    [ ! -e "$file" ]
    equal "$(ls "$MNT/video/payload")" ""
}

@test "who may read the queue may see its payloads, nobody else" {
    "$IPCFS" mkdir -m 700 private
    film 100000
    cp "$FILM" "$MNT/private/put"
    local file
    file=$(echo "$MNT"/private/payload/*)
    setfacl -m u:1234:x "$MNT/private"
    fails_with "Permission denied" as_user 1234 ls "$MNT/private/payload"
    setfacl -m u:1234:r "$MNT/private/queue"
    as_user 1234 cmp "$file" "$FILM"
    fails_with "Permission denied" as_user 1235 cat "$file"
}

@test "payloads go along with their channel in chmod -R and chgrp -R, and cannot be changed alone" {
    "$IPCFS" mkdir -m 700 private
    film 100000
    cp "$FILM" "$MNT/private/put"
    local file
    file=$(echo "$MNT"/private/payload/*)
    chmod -R g+rwX "$MNT/private"
    chgrp -R 1235 "$MNT/private"
    equal "$(stat -c '%g %a' "$file")" "1235 440"
    as_user 1235 cmp "$file" "$FILM"
    fails_with "Permission denied" as_user 1236 cat "$file"
    fails_with "Operation not permitted" chgrp 1236 "$file"
    fails_with "Operation not permitted" chmod g-r "$MNT/private/payload"
}

@test "a Python script maps a payload with nothing but its standard library" {
    film 5000000
    cp "$FILM" "$MNT/video/put"
    python3 - "$MNT/video" "$FILM" <<'PY'
import mmap, os, struct, sys
channel, film = sys.argv[1:]
reader = os.open(channel + "/framed/next", os.O_RDONLY)
frame = os.read(reader, 1 << 20)
header, payload, body = struct.unpack_from("<H", frame, 6)[0], *struct.unpack_from("<QQ", frame, 80)
kind, length = struct.unpack_from("<HH", frame, 96)
how, size = frame[100], struct.unpack_from("<Q", frame, 108)[0]
assert (header, body, kind, length, how, size) == (96 + 40, 0, 6, 32, 1, 5000000)
with open(f"{channel}/payload/{payload}", "rb") as file:
    memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
os.close(reader)      # the mapping keeps the payload
assert memory[:] == open(film, "rb").read()
PY
}

# ---- share/ ------------------------------------------------------------------------------------

shares_memory() {
    python3 - "$MNT/video" <<'PY'
import mmap, os, sys
name = sys.argv[1] + "/share/frames"
here = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.ftruncate(here, 1 << 20)
ours = mmap.mmap(here, 0)
child = os.fork()
if child == 0:
    theirs = mmap.mmap(os.open(name, os.O_RDWR), 0)
    theirs[4096:4101] = b"hello"
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert ours[4096:4101] == b"hello"
PY
    equal "$(dd if="$MNT/video/share/frames" bs=4096 skip=1 count=1 status=none | head -c 5)" hello
    equal "$(stat -c '%s %a' "$MNT/video/share/frames")" "1048576 600"
}
@test "processes share memory by a region" { shares_memory; }

@test "the mode and ACL of a region say who may open it" {
    chmod 755 "$MNT/video" "$MNT/video/share"
    (umask 077; echo secret >"$MNT/video/share/notes")
    fails_with "Permission denied" as_user 1234 cat "$MNT/video/share/notes"
    setfacl -m u:1234:r "$MNT/video/share/notes"
    equal "$(as_user 1234 cat "$MNT/video/share/notes")" secret
    fails_with "Permission denied" sh_as 1234 'echo x >"$1"' "$MNT/video/share/notes"
    setfacl -b "$MNT/video/share/notes"
    fails_with "Permission denied" as_user 1234 cat "$MNT/video/share/notes"
    fails_with "Permission denied" sh_as 1234 ': >"$1"' "$MNT/video/share/theirs"
}

@test "regions are renamed and unlinked as files, and keep their channel" {
    echo one >"$MNT/video/share/a"
    mv "$MNT/video/share/a" "$MNT/video/share/b"
    equal "$(ls "$MNT/video/share")" b
    equal "$(cat "$MNT/video/share/b")" one
    fails_with "Directory not empty" rmdir "$MNT/video"
    rm "$MNT/video/share/b"
    rmdir "$MNT/video"
}

@test "a region cannot be larger than max-payload" {
    echo 'max-payload 1M' >"$MNT/video/ctl"
    fails_with "File too large" truncate -s 2M "$MNT/video/share/frames"
    truncate -s 1M "$MNT/video/share/frames"
}

revokes() {
    python3 - "$MNT/video" <<'PY'
import mmap, os, signal, sys, time
name = sys.argv[1] + "/share/frames"
here = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
os.write(here, b"content".ljust(8192, b"."))
ready, told = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.close(told[1])
    memory = mmap.mmap(os.open(name, os.O_RDWR), 0)
    memory[0:1]
    os.write(ready[1], b"x")
    os.read(told[0], 1)
    memory[0:1]              # SIGBUS
    os._exit(0)
os.read(ready[0], 1)
with open(sys.argv[1] + "/ctl", "w") as ctl: ctl.write("revoke share/frames\n")
# Through the page cache it takes a moment: the kernel is told once the content has moved.
end = time.monotonic() + 20
while True:
    assert time.monotonic() < end, "the old descriptor still reads"
    try: os.pread(here, 10, 0)
    except OSError: break
os.write(told[1], b"x")
status = os.waitpid(child, 0)[1]
assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGBUS, status
again = mmap.mmap(os.open(name, os.O_RDWR), 0)
assert again[:] == b"content".ljust(8192, b".")
PY
    equal "$(awk -F '\t' '$2 == "revocations" { print $4 }' "$MNT/kern/ipc/stats/mappings")" 1
}
@test "revoke takes a region away from who has it mapped, and keeps the content" { revokes; }
@test "revoke takes a region away from who has it mapped, without passthrough" {
    without_passthrough
    revokes
}

@test "revoking what is not there changes nothing and says so" {
    run -1 "$IPCFS" ctl video revoke share/nothing
    [[ "$output" == *"there is no region share/nothing"* ]]
    fails_with "Invalid argument" put "$MNT/video/ctl" $'capacity 7\nrevoke nothing\n'
    [ "$(value capacity "$MNT/video/ctl")" != 7 ]
}

# ---- the control socket, as docs/control.md has it ----------------------------------------------

@test "a Python script hands over a memfd, and a region, by the control socket" {
    python3 - "$MNT" <<'PY'
import array, mmap, os, socket, struct, sys
mount = sys.argv[1]
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect(os.readlink(mount + "/kern/ipc/control"))

def ask(op, body, fds=()):
    header = struct.pack("<IHHIi", 0x43435049, 1, op, 7, 0)
    control.sendmsg([header + body], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    reply, got, _, _ = socket.recv_fds(control, 16384, 4)
    magic, version, answered, tag, error = struct.unpack_from("<IHHIi", reply)
    assert (magic, version, answered, tag) == (0x43435049, 1, op | 0x8000, 7)
    if error: raise OSError(error, reply[16:].decode())
    return reply[16:], got

def envelope(path, size=0):
    return struct.pack("<QQQQHBBIII", 0, 0, 0, size, 0, 128, 2, len(path), 0, 0)

memory = os.memfd_create("film", os.MFD_ALLOW_SEALING)
os.write(memory, b"frame" * 100000)
writable = mmap.mmap(memory, 0)
try: ask(2, envelope("video") + b"video", [memory])
except OSError as error: assert error.errno == 1, error
else: sys.exit("taken while it is mapped for writing")
writable.close()
reply, _ = ask(2, envelope("video") + b"video", [memory])
payload, size = struct.unpack("<QQ", reply)
assert size == 500000 and os.listdir(mount + "/video/payload") == [str(payload)]
assert open(mount + "/video/next", "rb").read() == b"frame" * 100000
for wrong in (os.open("/", os.O_RDONLY), os.pipe()[0], control.fileno()):
    try: ask(2, envelope("video") + b"video", [wrong])
    except OSError as error: assert error.errno == 1, error
    else: sys.exit("taken")

os.mkdir(mount + "/target")
region = os.open(mount + "/video/share/frames", os.O_RDWR | os.O_CREAT)
os.write(region, b"moved")
ask(12, envelope("video") + struct.pack("<II", 6, 6) + b"video" + b"frames" + b"target")
assert os.listdir(mount + "/video/share") == []
reader = os.open(mount + "/target/framed/next", os.O_RDONLY)
frame = os.read(reader, 1 << 20)
payload, = struct.unpack_from("<Q", frame, 80)
assert frame[5] == 5                         # a hand-off
reply, got = ask(13, struct.pack("<Q", payload))
assert struct.unpack("<Q", reply) == (5,) and os.pread(got[0], 10, 0) == b"moved"
os.pwrite(got[0], b"M", 0)
try: ask(13, struct.pack("<Q", payload))
except OSError as error: assert error.errno == 1, error
else: sys.exit("claimed twice")
PY
}

@test "recv takes a region that was handed over, and ends it" {
    mkdir "$MNT/target"
    echo moved >"$MNT/video/share/frames"
    python3 - "$MNT" <<'PY'
import os, socket, struct, sys
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect(os.readlink(sys.argv[1] + "/kern/ipc/control"))
control.send(struct.pack("<IHHIi", 0x43435049, 1, 12, 1, 0) +
             struct.pack("<QQQQHBBIII", 0, 0, 0, 0, 0, 128, 2, 5, 0, 0) +
             struct.pack("<II", 6, 6) + b"video" + b"frames" + b"target")
assert struct.unpack_from("<i", control.recv(1000), 12) == (0,)
PY
    equal "$("$IPCFS" recv target)" moved
    equal "$(ls "$MNT/video/share")" ""
}

# ---- the command -------------------------------------------------------------------------------

@test "send and recv pass on messages of any size" {
    film 5000000
    "$IPCFS" send video --file "$FILM"
    "$IPCFS" recv video | cmp - "$FILM"
    cat "$FILM" | "$IPCFS" send video
    "$IPCFS" recv video --output "$BATS_TEST_TMPDIR/got"
    cmp "$BATS_TEST_TMPDIR/got" "$FILM"
    cat "$FILM" | "$IPCFS" send video -p 7 --type video/raw --ttl 1h
    "$IPCFS" recv video --json >"$BATS_TEST_TMPDIR/json"
    equal "$(said '["length"]' "$BATS_TEST_TMPDIR/json")" 5000000
    equal "$(said '["priority"]' "$BATS_TEST_TMPDIR/json")" 7
    equal "$(said '["content-type"]' "$BATS_TEST_TMPDIR/json")" video/raw
    equal "$(said '["payload-kind"]' "$BATS_TEST_TMPDIR/json")" sealed
    said '["body"]' "$BATS_TEST_TMPDIR/json" | base64 -d | cmp - "$FILM"
    "$IPCFS" send video -p high --file "$FILM"
    "$IPCFS" recv video --json --output "$BATS_TEST_TMPDIR/got" >"$BATS_TEST_TMPDIR/json"
    cmp "$BATS_TEST_TMPDIR/got" "$FILM"
    equal "$(said '["length"]' "$BATS_TEST_TMPDIR/json")" 5000000
}

too_large_to_send() {
    "$IPCFS" ctl video max-payload 1M
    film 3000000
    run -1 "$IPCFS" send video --file "$FILM"
    [[ "$output" == *"too long; max-payload is 1M"* ]]
    run -1 bash -c 'cat "$1" | "$2" send video --type event' _ "$FILM" "$IPCFS"
    [[ "$output" == *"a message of at least 2.9M is too long; max-payload is 1M"* ]]
    equal "$(queued)" 0
}
@test "send says that a message is over max-payload, and sends nothing of it" { too_large_to_send; }
@test "send says that a message is over max-payload, without passthrough" {
    without_passthrough
    too_large_to_send
}

@test "send of a source that fails sends nothing" {
    run -1 "$IPCFS" send video --file /proc/self/mem
    equal "$(queued)" 0
    # Enough is read before the error for it to have begun.
    python3 - "$IPCFS" <<'PY'
import os, pty, subprocess, sys, tty
master, slave = pty.openpty()
tty.setraw(slave)
send = subprocess.Popen([sys.argv[1], "send", "video"], stdin=master, stderr=subprocess.PIPE)
os.close(master)
for _ in range(400): os.write(slave, b"x" * 4000)
os.close(slave)                               # read(2) at the other end: EIO
assert b"Input/output error" in send.communicate(timeout=20)[1] and send.returncode == 1
PY
    equal "$(queued)" 0
}

@test "a large send to a full channel waits, and with --timeout exits 3 and sends nothing" {
    "$IPCFS" ctl video capacity 2 high-watermark 100 low-watermark 50
    "$IPCFS" send video 1 2
    film 2000000
    run -3 "$IPCFS" send video --timeout 0 --file "$FILM"
    [[ "$output" == *"video is full (2 of 2)"* ]]
    run -3 "$IPCFS" send video --timeout 50ms --file "$FILM"
    bg "$IPCFS" send video --file "$FILM"
    local sender=$BG_PID
    equal "$("$IPCFS" recv video)" 1
    wait "$sender"
    equal "$("$IPCFS" recv video)" 2
    "$IPCFS" recv video | cmp - "$FILM"
    equal "$(queued)" 0
}

@test "a large send that is interrupted while it waits sends nothing" {
    "$IPCFS" ctl video capacity 2 high-watermark 100 low-watermark 50
    python3 - "$IPCFS" "$MNT/video" <<'PY'
import os, pty, signal, subprocess, sys, tty
ipcfs, channel = sys.argv[1:]
for number in signal.SIGINT, signal.SIGTERM:
    signal.signal(number, signal.SIG_DFL)
    master, slave = pty.openpty()
    tty.setraw(slave)
    send = subprocess.Popen([ipcfs, "send", "video"], stdin=subprocess.PIPE, stderr=slave)
    os.close(slave)
    send.stdin.write(b"x" * 2000000)             # it has begun
    for n in range(2):
        with open(channel + "/queue", "w") as queue: queue.write(str(n))
    send.stdin.close()
    shown = b""
    while b"waiting: video is full" not in shown: shown += os.read(master, 1000)
    send.send_signal(number)
    assert send.wait(20) == -number, send.returncode
    with open(channel + "/queue") as queue: assert queue.read() == "01"
PY
}

@test "maps says who holds what" {
    film 200000
    cp "$FILM" "$MNT/video/put"
    cat >"$BATS_TEST_TMPDIR/holder" <<'PY'
import mmap, os, signal, sys
channel, ready = sys.argv[1:]
payload = os.open(channel + "/payload/" + os.listdir(channel + "/payload")[0], os.O_RDONLY)
seen = mmap.mmap(payload, 0, prot=mmap.PROT_READ)
region = os.open(channel + "/share/frames", os.O_RDWR | os.O_CREAT)
os.ftruncate(region, 1 << 20)
shared = mmap.mmap(region, 0)
put = os.open(channel + "/put", os.O_WRONLY)
open(ready, "w").close()
signal.pause()
PY
    bg python3 "$BATS_TEST_TMPDIR/holder" "$MNT/video" "$BATS_TEST_TMPDIR/ready"
    local holder=$BG_PID
    wait_until test -e "$BATS_TEST_TMPDIR/ready"
    "$IPCFS" maps --json >"$BATS_TEST_TMPDIR/json"
    python3 - "$BATS_TEST_TMPDIR/json" "$holder" <<'PY'
import json, sys
told = json.load(open(sys.argv[1]))
pid = int(sys.argv[2])
objects = {each["object"]: each for each in told["objects"]}
assert set(objects) == {"payload", "region", "put"}, objects
for each in objects.values():
    assert each["channel"] == "video" and [h["pid"] for h in each["holders"]] == [pid], each
payload, region, put = (objects[name] for name in ("payload", "region", "put"))
assert payload["size"] == 200000 and payload["state"] == "mapped", payload
assert payload["holders"][0]["access"] == "read-only" and payload["holders"][0]["mapped"] == 200704
assert region["name"] == "share/frames" and region["size"] == 1 << 20
assert region["holders"][0]["access"] == "writable" and region["holders"][0]["mapped"] == 1 << 20
assert put["state"] == "filling" and told["unseen"] == 0
assert {"object": "payload", "state": "open", "uid": 0, "count": 1, "bytes": 200000} in told["totals"]
PY
    run -0 "$IPCFS" maps video
    [[ "$output" == *share/frames*"$holder"*writable*python3* ]]
    mkdir "$MNT/other"
    run -0 "$IPCFS" maps other
    [ -z "$output" ]
    kill "$holder"
    wait "$holder" || true
    [ "$("$IPCFS" maps --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["objects"])')" = '[]' ]
    run -0 "$IPCFS" maps video --all
    [[ "$output" == *idle* ]]
}

@test "maps tells an ordinary user that there is more to see" {
    local command=$BATS_TEST_TMPDIR/ipcfs
    cp "$IPCFS" "$command"
    chmod 755 "$command"
    run -0 as_user 1234 "$command" --mount "$MNT" maps
    [[ "$output" == *"processes of other users could not be inspected"* ]]
    run -0 as_user 1234 "$command" --mount "$MNT" -q maps
    [[ "$output" != *"could not be"* ]]
}

@test "ls and status count payloads and regions, and rm --force takes regions along" {
    film 100000
    cp "$FILM" "$MNT/video/put"
    truncate -s 4096 "$MNT/video/share/frames"
    "$IPCFS" ls --json >"$BATS_TEST_TMPDIR/json"
    equal "$(said '[0]["payloads"], d[0]["regions"]' "$BATS_TEST_TMPDIR/json")" "(1, 1)"
    "$IPCFS" status --json >"$BATS_TEST_TMPDIR/json"
    equal "$(said '["payload-bytes"], d["regions"]' "$BATS_TEST_TMPDIR/json")" "(100000, 1)"
    cat "$MNT/video/next" >/dev/null
    run -1 "$IPCFS" rm video
    [[ "$output" == *"1 region in share/"* ]]
    "$IPCFS" rm --force video
    [ ! -e "$MNT/video" ]
}

@test "doctor tells of passthrough as the daemon does" {
    "$IPCFS" doctor --json >"$BATS_TEST_TMPDIR/json" || true
    python3 - "$BATS_TEST_TMPDIR/json" "$MNT/kern/ipc/version" <<'PY'
import json, sys
checks = {c["check"]: c for c in json.load(open(sys.argv[1]))["checks"]}
on = "passthrough on\n" in open(sys.argv[2]).read()
assert (checks["passthrough"]["level"] == "ok") == on, checks["passthrough"]
for name in "userfaultfd", "UFFDIO_POISON", "huge pages of shared memory", "reserved huge pages", "memfd":
    assert name in checks, name
PY
    without_passthrough
    "$IPCFS" doctor >"$BATS_TEST_TMPDIR/out" || true
    grep -A1 '^warn  passthrough .*turned off' "$BATS_TEST_TMPDIR/out" | grep -q 'fuse.passthrough = "auto"'
}

# ---- what no file carries, received by the command ----------------------------------------------

@test "recv takes a chunk of a pool and gives it back" {
    fails_with "Invalid argument" put "$MNT/video/ctl" 'payloads lent'
    echo 'payloads pooled' >"$MNT/video/ctl"
    python3 - "$MNT" "$IPCFS" <<'PY'
import array, fcntl, mmap, os, socket, struct, subprocess, sys
mount, ipcfs = sys.argv[1:]
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect(os.readlink(mount + "/kern/ipc/control"))
memory = os.memfd_create("pool", os.MFD_ALLOW_SEALING)
os.ftruncate(memory, 2 * 8192)
chunks = mmap.mmap(memory, 0)
fcntl.fcntl(memory, 1033, 0x2 | 0x4 | 0x10)      # F_ADD_SEALS: shrink, grow, future write
control.sendmsg([struct.pack("<IHHIiQQII", 0x43435049, 1, 3, 1, 0, 5000, 8192, 2, 5) + b"video"],
                [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [memory]))])
reply, got, _, _ = socket.recv_fds(control, 16384, 4)
assert struct.unpack_from("<i", reply, 12) == (0,), reply
pool, = struct.unpack_from("<Q", reply, 16)
ledger = mmap.mmap(got[0], 0)
def word(chunk): return struct.unpack_from("<Q", ledger, 192 + 64 * chunk)[0]

def frame(chunk, generation, size):
    extension = struct.pack("<HHBxxxIQQII", 6, 32, 2, chunk, size, pool, generation, 0) + bytes(4)
    return struct.pack("<IBBHHBBIQQQQQIIIIQQQ", 0x46435049, 1, 2, 96 + len(extension), 1, 128, 0,
                       *[0] * 13) + extension
queue = os.open(mount + "/video/framed/queue", os.O_WRONLY)
chunks[8192:8197] = b"chunk"
struct.pack_into("<Q", ledger, 192 + 64, 1 << 32 | 1)   # taken: generation 1, one reference
os.write(queue, frame(1, 1, 5))
for wrong in (1, 1, 5), (0, 1, 5), (7, 1, 5), (1, 2, 5):
    try: os.write(queue, frame(*wrong))
    except OSError as error: assert error.errno in (16, 22), error
    else: sys.exit("queued a chunk that is not the sender's")
assert subprocess.run([ipcfs, "recv", "video"], stdout=subprocess.PIPE).stdout == b"chunk"
assert word(1) == 1 << 32                                # given back
PY
}

@test "recv has a lazy payload filled by its producer, and says when that is gone" {
    chmod 777 "$MNT/video"
    chmod 666 "$MNT/video/queue" "$MNT/video/framed/queue"
    cat >"$BATS_TEST_TMPDIR/producer" <<'PY'
import os, socket, struct, sys
os.setgroups([])
os.setresgid(1234, 1234, 1234)
os.setresuid(1234, 1234, 1234)
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
control.connect(os.readlink(sys.argv[1] + "/kern/ipc/control"))
control.send(struct.pack("<IHHIi", 0x43435049, 1, 9, 1, 0) +
             struct.pack("<QQQQHBBIII", 0, 0, 0, 100000, 0, 128, 2, 5, 0, 0) + b"video")
assert struct.unpack_from("<i", control.recv(1000), 12) == (0,)
packet, (memory, link), _, _ = socket.recv_fds(control, 16384, 4)
mode, uid = struct.unpack_from("<II", packet, 40)
assert struct.unpack_from("<H", packet, 6) == (0x4001,) and (mode, uid) == (1, 0), packet
def say(word): os.write(link, struct.pack("<IiQQQ", word, 0, 0, 0, 0))
say(1)                           # serving
if sys.argv[2] == "fill":
    os.pwrite(memory, b"lazy!" * 20000, 0)
    say(2)                       # whole
PY
    # Another user's producer gets no userfaultfd of root's: it fills the whole.
    bg python3 "$BATS_TEST_TMPDIR/producer" "$MNT" fill
    wait_until status_is video depth 1
    fails_with "Operation not supported" cat "$MNT/video/queue"
    equal "$(queued)" 1
    "$IPCFS" recv video | cmp - <(printf 'lazy!%.0s' {1..20000})
    bg python3 "$BATS_TEST_TMPDIR/producer" "$MNT" die
    wait_until status_is video depth 1
    run -1 "$IPCFS" recv video
    [[ "$output" == *"a message came, but not its payload"* ]]
}
