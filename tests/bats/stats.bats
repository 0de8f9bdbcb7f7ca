# The statistics files: a line of column names, then data; one open is one snapshot.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

# regular FILE: every line has as many fields as the first.
regular() { awk -F '\t' 'NR == 1 { n = NF } NF != n { bad = 1 } END { exit bad || NR < 1 }' "$1"; }

@test "each has a header and rows of the same width" {
    echo x >"$MNT/jobs/queue"
    for file in "$MNT"/kern/ipc/stats/{messages,channels,notifications,resources} "$MNT/jobs/stats" "$MNT/jobs/peek"; do
        regular "$file"
        [ "$(wc -l <"$file")" -ge 2 ]
    done
}

@test "messages and channels have a row a channel" {
    mkdir -p "$MNT/a/b"
    for table in messages channels; do
        equal "$(column "$MNT/kern/ipc/stats/$table" channel | sort)" $'a\na/b\njobs'
    done
    rmdir "$MNT/a/b"
    equal "$(column "$MNT/kern/ipc/stats/channels" channel | sort)" $'a\njobs'
}

@test "names with special bytes are escaped" {
    mkdir "$MNT/"$'new\nline' "$MNT/"$'tab\there' "$MNT/"'back\slash'
    regular "$MNT/kern/ipc/stats/channels"
    equal "$(column "$MNT/kern/ipc/stats/channels" channel | sort)" \
        "$(printf '%s\n' 'back\\slash' jobs 'new\nline' 'tab\there' | sort)"
}

@test "the counters count" {
    for i in {1..5}; do echo "$i" >"$MNT/jobs/queue"; done
    for i in 1 2; do cat "$MNT/jobs/next" >/dev/null; done
    local counters
    counters=$(tr '\t' '\n' <"$MNT/jobs/stats")
    grep -qx 5 <<<"$counters"
    grep -qx 2 <<<"$counters"
    equal "$(value depth "$MNT/jobs/status")" 3
}

@test "latency percentiles are in order" {
    for i in {1..50}; do echo "$i" >"$MNT/jobs/queue"; done
    cat "$MNT/jobs/queue" >/dev/null
    python3 - "$MNT/jobs/stats" <<'PY'
import sys
names, values = [line.rstrip("\n").split("\t") for line in open(sys.argv[1])][:2]
row = dict(zip(names, values))
keys = [next(n for n in names if p in n) for p in ("p50", "p95", "p99", "max")]
numbers = [int(row[k]) for k in keys]
assert 0 < numbers[0] <= numbers[1] <= numbers[2] <= numbers[3], dict(zip(keys, numbers))
PY
}

@test "resources are told by user and go back to nothing" {
    as_user 1001 mkdir -m 777 "$MNT/mine"
    sh_as 1001 'echo x >"$1"' "$MNT/mine/queue"
    used() { awk -F '\t' -v id="$1" -v r="$2" '$1 == "user" && $2 == id && $3 == r { print $4 }' "$MNT/kern/ipc/stats/resources"; }
    equal "$(used 1001 channels)" 1
    equal "$(used 1001 messages)" 1
    cat "$MNT/mine/queue" >/dev/null
    none_left() { [ "$(used 1001 messages)" = 0 ] || [ -z "$(used 1001 messages)" ]; }
    wait_until none_left
}

@test "the daemon tells of itself and of its requests" {
    local resources=$MNT/kern/ipc/stats/resources
    equal "$(head -n 1 "$resources" | cut -f 1-5)" $'scope\tid\tresource\tused\tlimit'
    grep -q $'^daemon\t0\trss\t[1-9]' "$resources"
    before=$(awk -F '\t' '$1 == "request" && $3 == "WRITE" { print $4 }' "$resources")
    echo x >"$MNT/jobs/queue"
    after=$(awk -F '\t' '$1 == "request" && $3 == "WRITE" { print $4 }' "$resources")
    equal "$((after - ${before:-0}))" 1
}

@test "one open is one snapshot, however small its reads" {
    for i in {1..50}; do mkdir "$MNT/c$i"; done
    python3 - "$MNT" <<'PY'
import os, sys
mount = sys.argv[1]
for name in "kern/ipc/stats/channels", "kern/ipc/stats/messages":
    fd = os.open(f"{mount}/{name}", os.O_RDONLY)
    text = os.read(fd, 7)
    for i in range(1, 51):
        os.rename(f"{mount}/c{i}", f"{mount}/longer-name-{i}")
    while part := os.read(fd, 13):
        text += part
    lines = text.decode().splitlines()
    assert len({line.count("\t") for line in lines}) == 1
    channels = [line.split("\t")[0] for line in lines[1:]]
    assert sorted(channels) == sorted(["jobs"] + [f"c{i}" for i in range(1, 51)]), channels
    os.close(fd)
    for i in range(1, 51):
        os.rename(f"{mount}/longer-name-{i}", f"{mount}/c{i}")
PY
}

@test "dd with one byte a read gets the same text as cat" {
    mkdir "$MNT/still"
    equal "$(dd if="$MNT/kern/ipc/stats/channels" bs=1 status=none | head -n 1)" \
        "$(head -n 1 "$MNT/kern/ipc/stats/channels")"
    dd if="$MNT/kern/ipc/stats/channels" bs=1 status=none | regular /dev/stdin
}

@test "config and version can be read by everybody" {
    as_user 1001 cat "$MNT/kern/ipc/version" | grep -Eq '[0-9]+\.[0-9]+'
    as_user 1001 cat "$MNT/kern/ipc/config" >"$BATS_TEST_TMPDIR/config"
    "$IPCFS_TEST_DAEMON" --check-config --config "$BATS_TEST_TMPDIR/config"
}
