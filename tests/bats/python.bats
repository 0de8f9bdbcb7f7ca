# Python's event loops on message files.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

@test "select waits for a message and for room" {
    echo "capacity 10" >"$MNT/jobs/ctl"
    python3 - "$MNT/jobs" <<'PY'
import os, select, sys, threading
jobs = sys.argv[1]
reader = os.open(f"{jobs}/queue", os.O_RDONLY | os.O_NONBLOCK)
writer = os.open(f"{jobs}/queue", os.O_WRONLY | os.O_NONBLOCK)
assert select.select([reader], [writer], [], 0) == ([], [writer], [])
os.write(writer, b"x")
assert select.select([reader], [], [], 10)[0] == [reader]
assert os.read(reader, 10) == b"x"
assert select.select([reader], [], [], 0)[0] == []
for _ in range(8):
    os.write(writer, b"x")
assert select.select([], [writer], [], 0)[1] == []
def drain():
    while os.read(reader, 10): pass
timer = threading.Timer(0.05, drain); timer.start()
assert select.select([], [writer], [], 10)[1] == [writer]
timer.join()
PY
}

@test "poll and epoll wake up again and again" {
    mkdir "$MNT/other"
    python3 - "$MNT" <<'PY'
import os, select, sys
mount = sys.argv[1]
files = {os.open(f"{mount}/{name}", os.O_RDONLY | os.O_NONBLOCK): name.split("/")[0]
         for name in ("jobs/stream", "other/queue")}
for make in select.poll, select.epoll:
    waiter = make()
    for fd in files:
        waiter.register(fd, select.POLLIN)
    for i in range(20):
        assert waiter.poll(0) == []
        fd = list(files)[i % 2]
        with open(f"{mount}/{files[fd]}/queue", "w") as out:
            out.write(str(i))
        assert waiter.poll(10000 if make is select.poll else 10) == [(fd, select.POLLIN)]
        assert os.read(fd, 100) == str(i).encode()
PY
}

@test "asyncio add_reader delivers every message" {
    python3 - "$MNT/jobs" <<'PY'
import asyncio, os, sys
jobs = sys.argv[1]
async def main():
    loop = asyncio.get_running_loop()
    fd = os.open(f"{jobs}/stream", os.O_RDONLY | os.O_NONBLOCK)
    got, done = [], asyncio.Event()
    def readable():
        try:
            got.append(os.read(fd, 65536))
        except BlockingIOError:
            return
        if len(got) == 300:
            done.set()
    loop.add_reader(fd, readable)
    def produce(name):
        for i in range(100):
            with open(f"{jobs}/queue", "w") as out:
                out.write(f"{name}{i}")
    await asyncio.gather(*(asyncio.to_thread(produce, name) for name in "abc"))
    await asyncio.wait_for(done.wait(), 20)
    assert sorted(got) == sorted(f"{name}{i}".encode() for name in "abc" for i in range(100))
    for name in "abc":
        assert [m for m in got if m.decode().startswith(name)] == [f"{name}{i}".encode() for i in range(100)]
asyncio.run(main())
PY
}

@test "asyncio add_reader on notify and add_writer on a full channel" {
    echo "capacity 10" >"$MNT/jobs/ctl"
    python3 - "$MNT/jobs" <<'PY'
import asyncio, os, sys
jobs = sys.argv[1]
async def main():
    loop = asyncio.get_running_loop()
    notify = os.open(f"{jobs}/notify", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(f"{jobs}/queue", os.O_WRONLY | os.O_NONBLOCK)
    arrived, room = asyncio.Event(), asyncio.Event()
    loop.add_reader(notify, lambda: (os.read(notify, 4096), arrived.set()))
    for _ in range(8):
        os.write(writer, b"x")
    await asyncio.wait_for(arrived.wait(), 10)
    loop.add_writer(writer, lambda: (loop.remove_writer(writer), room.set()))
    await asyncio.sleep(0.05)
    assert not room.is_set()
    reader = os.open(f"{jobs}/queue", os.O_RDONLY)
    while os.read(reader, 10): pass
    await asyncio.wait_for(room.wait(), 10)
    loop.remove_reader(notify)
asyncio.run(main())
PY
}

@test "plain file objects work" {
    python3 - "$MNT/jobs" <<'PY'
import json, sys
jobs = sys.argv[1]
with open(f"{jobs}/queue", "w") as out:
    json.dump({"job": 1}, out)
with open(f"{jobs}/next") as one:
    assert json.load(one) == {"job": 1}
for i in range(3):
    with open(f"{jobs}/queue", "w") as out:
        print("line", i, file=out)
assert list(open(f"{jobs}/queue")) == ["line 0\n", "line 1\n", "line 2\n"]
PY
}

@test "threads of one process wait beside each other" {
    python3 - "$MNT/jobs" <<'PY'
import sys, threading
jobs = sys.argv[1]
got, lock = [], threading.Lock()
def take():
    with open(f"{jobs}/next") as one:
        text = one.read()
    with lock:
        got.append(text)
threads = [threading.Thread(target=take) for _ in range(20)]
for thread in threads: thread.start()
for i in range(20):
    with open(f"{jobs}/queue", "w") as out:
        out.write(str(i))
for thread in threads: thread.join(20)
assert sorted(map(int, got)) == list(range(20)), got
PY
}
