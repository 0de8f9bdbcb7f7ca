# The tools that read, and how messages look to them.
load helper
setup() { start_daemon; mkdir "$MNT/jobs"; }
teardown() { clean_up; }

@test "cat drains the queue and returns" {
    seq 3 | while read -r i; do echo "$i" >"$MNT/jobs/queue"; done
    equal "$(cat "$MNT/jobs/queue")" $'1\n2\n3'
    equal "$(value depth "$MNT/jobs/status")" 0
}

@test "job=\$(cat next) takes exactly one" {
    echo one >"$MNT/jobs/queue"
    echo two >"$MNT/jobs/queue"
    job=$(cat "$MNT/jobs/next")
    equal "$job" one
    job=$(cat "$MNT/jobs/next")
    equal "$job" two
}

@test "head -n 1 takes one message and leaves the others" {
    echo one >"$MNT/jobs/queue"
    echo two >"$MNT/jobs/queue"
    equal "$(head -n 1 "$MNT/jobs/queue")" one
    equal "$(head -n 1 "$MNT/jobs/queue")" two
}

@test "while read sees each line, also several in one message" {
    put "$MNT/jobs/queue" $'a\nb\nc\n'
    put "$MNT/jobs/queue" $'d\n'
    put "$MNT/jobs/queue" $'e\nf\n'
    local lines=
    while read -r line; do lines+="<$line>"; done <"$MNT/jobs/queue"
    equal "$lines" "<a><b><c><d><e><f>"
}

@test "bash read takes the lines of one message from next" {
    put "$MNT/jobs/queue" $'first\nsecond\nthird\n'
    put "$MNT/jobs/queue" $'other\n'
    { read -r one; read -r two; read -r three; ! read -r four; } <"$MNT/jobs/next"
    equal "$one $two $three" "first second third"
    equal "$(cat "$MNT/jobs/queue")" other
}

@test "bash read with a message of many lines longer than its buffer" {
    seq 1000 >"$BATS_TEST_TMPDIR/lines"
    put "$MNT/jobs/queue" "$(cat "$BATS_TEST_TMPDIR/lines")"$'\n'
    while read -r line; do echo "$line"; done <"$MNT/jobs/queue" >"$BATS_TEST_TMPDIR/got"
    cmp "$BATS_TEST_TMPDIR/lines" "$BATS_TEST_TMPDIR/got"
}

@test "mapfile and read -d take whole messages" {
    put "$MNT/jobs/queue" $'x\ny\n'
    mapfile -t lines <"$MNT/jobs/queue"
    equal "${lines[*]}" "x y"
    put "$MNT/jobs/queue" $'two\nlines'
    IFS= read -r -d '' all <"$MNT/jobs/next" || true
    equal "$all" $'two\nlines'
}

@test "dd with tiny blocks gets every byte of every message" {
    put "$MNT/jobs/queue" abcdefgh
    put "$MNT/jobs/queue" ijk
    equal "$(dd if="$MNT/jobs/queue" bs=1 status=none)" abcdefghijk
    put "$MNT/jobs/queue" abcdefgh
    put "$MNT/jobs/queue" ijk
    equal "$(dd if="$MNT/jobs/queue" bs=3 status=none)" abcdefghijk
}

@test "what a reader leaves of its message goes with it" {
    put "$MNT/jobs/queue" abcdefgh
    put "$MNT/jobs/queue" second
    equal "$(dd if="$MNT/jobs/queue" bs=3 count=1 status=none)" abc
    equal "$(cat "$MNT/jobs/queue")" second
}

@test "cp copies out of a queue" {
    put "$MNT/jobs/queue" "to a file"
    cp "$MNT/jobs/queue" "$BATS_TEST_TMPDIR/copy"
    equal "$(cat "$BATS_TEST_TMPDIR/copy")" "to a file"
    equal "$(value depth "$MNT/jobs/status")" 0
}

@test "wc, grep, sort and sha256sum read it like any file" {
    for word in pear apple fig; do echo $word >"$MNT/jobs/queue"; done
    equal "$(sort "$MNT/jobs/queue")" $'apple\nfig\npear'
    for word in pear apple fig; do echo $word >"$MNT/jobs/queue"; done
    equal "$(grep -c . "$MNT/jobs/queue")" 3
    put "$MNT/jobs/queue" x
    equal "$(sha256sum <"$MNT/jobs/queue")" "$(printf x | sha256sum)"
}

@test "tail follows the stream" {
    echo early >"$MNT/jobs/queue"
    bg stdbuf -o0 tail -n +1 -f "$MNT/jobs/stream" >"$BATS_TEST_TMPDIR/out"
    wait_until grep -q early "$BATS_TEST_TMPDIR/out"
    echo late >"$MNT/jobs/queue"
    wait_until grep -q late "$BATS_TEST_TMPDIR/out"
    equal "$(cat "$BATS_TEST_TMPDIR/out")" $'early\nlate'
}

@test "cat follows the stream" {
    bg cat "$MNT/jobs/stream" >"$BATS_TEST_TMPDIR/out"
    for i in {1..10}; do
        echo "$i" >"$MNT/jobs/queue"
        wait_until grep -qx "$i" "$BATS_TEST_TMPDIR/out"
    done
    equal "$(cat "$BATS_TEST_TMPDIR/out")" "$(seq 10)"
}

@test "readers of the stream share the messages" {
    for i in {1..3}; do bg cat "$MNT/jobs/stream" >"$BATS_TEST_TMPDIR/out$i"; done
    wait_until status_is jobs waiting 3
    for i in {1..30}; do echo "$i" >"$MNT/jobs/queue"; done
    all_there() { [ "$(cat "$BATS_TEST_TMPDIR"/out? | wc -l)" = 30 ]; }
    wait_until all_there
    equal "$(cat "$BATS_TEST_TMPDIR"/out? | sort -n)" "$(seq 30)"
}

@test "priorities come first, each in its order" {
    for level in low normal high critical; do echo $level >"$MNT/jobs/priority/$level"; done
    echo plain >"$MNT/jobs/queue"
    equal "$(cat "$MNT/jobs/queue")" $'critical\nhigh\nnormal\nplain\nlow'
}

@test "framed readers get the header in front" {
    echo hello >"$MNT/jobs/queue"
    cat "$MNT/jobs/framed/next" >"$BATS_TEST_TMPDIR/frame"
    equal "$(head -c 4 "$BATS_TEST_TMPDIR/frame")" IPCF
    equal "$(tail -c 6 "$BATS_TEST_TMPDIR/frame")" hello
    frame "from a frame" >"$MNT/jobs/framed/queue"
    equal "$(cat "$MNT/jobs/queue")" "from a frame"
    fails_with "Invalid argument" put "$MNT/jobs/framed/queue" "no frame"
}
