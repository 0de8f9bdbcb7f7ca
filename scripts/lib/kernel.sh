# shellcheck shell=bash
# Kernel settings: the fuse module, its io_uring switch, mounts. Sourced after common.sh.

uring_switch=/sys/module/fuse/parameters/enable_uring

# prepare_fuse: loads the module if needed. Fails if /dev/fuse stays unavailable.
prepare_fuse() {
    [[ -e /dev/fuse ]] && return 0
    if is_root && modprobe fuse 2>/dev/null; then
        note "loaded the fuse module"
    fi
    if [[ ! -e /dev/fuse ]] && is_root && grep -qw fuse /proc/filesystems; then
        mknod -m 666 /dev/fuse c 10 229
    fi
    [[ -e /dev/fuse ]]
}

# enable_uring: enables FUSE over io_uring until the next boot, if kernel and permissions allow.
# Succeeds if it is enabled.
enable_uring() {
    if [[ ! -e $uring_switch ]]; then
        note "this kernel has no FUSE over io_uring: the classic transport it is"
        return 1
    fi
    [[ $(cat "$uring_switch") == Y ]] && return 0
    if is_root && echo Y 2>/dev/null >"$uring_switch"; then
        note "switched FUSE's io_uring on until the next boot (for ever: conf/ipcfs-modprobe.conf)"
        return 0
    fi
    note "FUSE over io_uring is off; as root: echo Y > $uring_switch (permanently: conf/ipcfs-modprobe.conf)"
    return 1
}

# mounts_below DIR: mount points of ipcfs at or below DIR, deepest first.
mounts_below() {
    awk -v dir="$1" '($3 == "fuse.ipcfs" || $3 == "fuse") && ($2 == dir || index($2, dir "/") == 1) { print $2 }' \
        /proc/self/mounts | sort -r
}
