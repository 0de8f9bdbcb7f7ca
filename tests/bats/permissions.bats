# Several users: read is the right to receive, write the right to send, ctl the right to tune.
load helper
setup() { start_daemon; umask 022; }
teardown() { clean_up; }

mode() { stat -c %a "$1"; }
owner() { stat -c %u:%g "$1"; }
send='echo "$2" >"$1"'

@test "anybody makes channels, which are theirs" {
    as_user 1001 mkdir "$MNT/mine"
    equal "$(owner "$MNT/mine")" 1001:1001
    equal "$(owner "$MNT/mine/queue")" 1001:1001
    as_user 1001 mkdir "$MNT/mine/sub"
    sh_as 1001 "$send" "$MNT/mine/queue" hello
    equal "$(as_user 1001 cat "$MNT/mine/queue")" hello
}

@test "only their owners remove or rename channels of the root directory" {
    as_user 1001 mkdir -m 777 "$MNT/mine"
    fails_with "Operation not permitted" as_user 1002 rmdir "$MNT/mine"
    fails_with "Operation not permitted" as_user 1002 mv "$MNT/mine" "$MNT/stolen"
    as_user 1001 mv "$MNT/mine" "$MNT/moved"
    as_user 1001 rmdir "$MNT/moved"
}

@test "sub-channels need write permission on their parent" {
    as_user 1001 mkdir -m 755 "$MNT/mine"
    fails_with "Permission denied" as_user 1002 mkdir "$MNT/mine/theirs"
    as_user 1001 chmod 777 "$MNT/mine"
    as_user 1002 mkdir "$MNT/mine/theirs"
    equal "$(owner "$MNT/mine/theirs")" 1002:1002
}

@test "new files have the mode of the directory, ctl and notify without writing for others" {
    umask 0
    mkdir -m 777 "$MNT/open"
    equal "$(mode "$MNT/open/queue")" 666
    equal "$(mode "$MNT/open/next")" 666
    equal "$(mode "$MNT/open/ctl")" 644
    equal "$(mode "$MNT/open/notify")" 644
    mkdir -m 750 "$MNT/group"
    equal "$(mode "$MNT/group")" 750
    equal "$(mode "$MNT/group/queue")" 640
    equal "$(mode "$MNT/group/ctl")" 640
    mkdir -m 700 "$MNT/private"
    equal "$(mode "$MNT/private/queue")" 600
    fails_with "Permission denied" as_user 1001 ls "$MNT/private"
    fails_with "Permission denied" sh_as 1001 "$send" "$MNT/private/queue" x
}

@test "others send and receive as the mode of each file says" {
    mkdir -m 755 "$MNT/jobs"
    fails_with "Permission denied" sh_as 1001 "$send" "$MNT/jobs/queue" x
    chmod 662 "$MNT/jobs/queue"  # others send, and do not receive
    sh_as 1001 "$send" "$MNT/jobs/queue" "from 1001"
    fails_with "Permission denied" as_user 1001 cat "$MNT/jobs/queue"
    equal "$(as_user 1001 cat "$MNT/jobs/next")" "from 1001"  # next has kept its own mode
    chmod 600 "$MNT/jobs/next"
    fails_with "Permission denied" as_user 1001 cat "$MNT/jobs/next"
    fails_with "Permission denied" sh_as 1001 "$send" "$MNT/jobs/ctl" purge
    chmod 666 "$MNT/jobs/ctl"
    sh_as 1001 "$send" "$MNT/jobs/ctl" purge
}

@test "chmod and chown are the owner's and root's" {
    as_user 1001 mkdir "$MNT/mine"
    fails_with "Operation not permitted" as_user 1002 chmod 777 "$MNT/mine/queue"
    fails_with "Operation not permitted" as_user 1001 chown 1002 "$MNT/mine/queue"
    as_user 1001 chmod 600 "$MNT/mine/queue"
    equal "$(mode "$MNT/mine/queue")" 600
    chown 1002:1003 "$MNT/mine/queue"
    equal "$(owner "$MNT/mine/queue")" 1002:1003
    equal "$(owner "$MNT/mine/next")" 1001:1001
    sh_as 1002 "$send" "$MNT/mine/queue" "mine now"
    fails_with "Permission denied" sh_as 1001 "$send" "$MNT/mine/queue" "no more"
}

@test "a change is seen at once in spite of the kernel's caches" {
    mkdir -m 755 "$MNT/jobs"
    for i in 1 2 3; do
        chmod 666 "$MNT/jobs/queue"
        sh_as 1001 "$send" "$MNT/jobs/queue" x
        chmod 644 "$MNT/jobs/queue"
        fails_with "Permission denied" sh_as 1001 "$send" "$MNT/jobs/queue" x
    done
}

@test "groups give rights, supplementary ones too" {
    mkdir -m 750 "$MNT/team"
    chgrp -R 2000 "$MNT/team"
    chmod g+w "$MNT/team/queue"
    setpriv --reuid=1001 --regid=2000 --clear-groups bash -c "$send" bash "$MNT/team/queue" one
    setpriv --reuid=1002 --regid=1002 --groups=2000 bash -c "$send" bash "$MNT/team/queue" two
    fails_with "Permission denied" sh_as 1003 "$send" "$MNT/team/queue" three
    equal "$(setpriv --reuid=1002 --regid=1002 --groups=2000 cat "$MNT/team/queue")" $'one\ntwo'
}

@test "an ACL gives one user one right on one file" {
    mkdir -m 755 "$MNT/jobs"
    chmod 600 "$MNT/jobs/queue" "$MNT/jobs/next"
    setfacl -m u:1001:w "$MNT/jobs/queue"
    setfacl -m u:1002:r "$MNT/jobs/next"
    getfacl -n "$MNT/jobs/queue" 2>/dev/null | grep -qx 'user:1001:-w-'
    sh_as 1001 "$send" "$MNT/jobs/queue" "by ACL"
    fails_with "Permission denied" as_user 1001 cat "$MNT/jobs/queue"
    fails_with "Permission denied" sh_as 1002 "$send" "$MNT/jobs/queue" x
    equal "$(as_user 1002 cat "$MNT/jobs/next")" "by ACL"
    setfacl -b "$MNT/jobs/queue"
    fails_with "Permission denied" sh_as 1001 "$send" "$MNT/jobs/queue" x
}

@test "the mask of an ACL and its groups hold" {
    mkdir -m 755 "$MNT/jobs"
    chmod 600 "$MNT/jobs/queue"
    setfacl -m g:2000:rw "$MNT/jobs/queue"
    setpriv --reuid=1001 --regid=2000 --clear-groups bash -c "$send" bash "$MNT/jobs/queue" one
    chmod g-w "$MNT/jobs/queue"  # with an ACL this is the mask
    fails_with "Permission denied" setpriv --reuid=1001 --regid=2000 --clear-groups \
        bash -c "$send" bash "$MNT/jobs/queue" two
    equal "$(setpriv --reuid=1001 --regid=2000 --clear-groups cat "$MNT/jobs/queue")" one
}

@test "an ACL on the directory keeps strangers out" {
    mkdir -m 700 "$MNT/jobs"
    setfacl -m u:1001:x "$MNT/jobs"
    chmod 666 "$MNT/jobs/queue"
    sh_as 1001 "$send" "$MNT/jobs/queue" in
    fails_with "Permission denied" sh_as 1002 "$send" "$MNT/jobs/queue" out
    fails_with "Permission denied" as_user 1001 ls "$MNT/jobs"
}

@test "a default ACL is inherited by sub-channels" {
    mkdir -m 755 "$MNT/jobs"
    setfacl -d -m u:1001:rwx "$MNT/jobs"
    mkdir "$MNT/jobs/sub"
    getfacl -n "$MNT/jobs/sub" 2>/dev/null | grep -q '^user:1001:rwx'
    as_user 1001 mkdir "$MNT/jobs/sub/theirs"
}

@test "rights are asked once, at open" {
    mkdir -m 755 "$MNT/jobs"
    chmod 666 "$MNT/jobs/queue"
    mkfifo "$BATS_TEST_TMPDIR/go"
    chmod 666 "$BATS_TEST_TMPDIR/go"
    bg as_user 1001 bash -c 'exec 7>"$1"; read -r _ <"$2"; echo late >&7' bash "$MNT/jobs/queue" "$BATS_TEST_TMPDIR/go"
    wait_until status_is jobs writers 1
    chmod 600 "$MNT/jobs/queue"
    echo go >"$BATS_TEST_TMPDIR/go"
    wait "$BG_PID"
    equal "$(cat "$MNT/jobs/queue")" late
}

@test "settings by xattr are the owner's" {
    as_user 1001 mkdir "$MNT/mine"
    as_user 1001 setfattr -n user.ipcfs.capacity -v 10 "$MNT/mine"
    equal "$(as_user 1002 getfattr --only-values -n user.ipcfs.capacity "$MNT/mine")" 10
    run as_user 1002 setfattr -n user.ipcfs.capacity -v 20 "$MNT/mine"
    [ "$status" -ne 0 ]
    equal "$(value capacity "$MNT/mine/ctl")" 10
}
