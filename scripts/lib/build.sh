# shellcheck shell=bash
# Configures and builds a preset of CMakePresets.json. Sourced after common.sh, deps.sh, libfuse.sh.

jobs=$(nproc)

# Clones and builds share compiler cache entries: paths below the repository are made relative.
export CCACHE_BASEDIR=$repo CCACHE_NOHASHDIR=1

# configure PRESET FUSE_PREFIX [-DNAME=VALUE...]: configures build/PRESET, from scratch if libfuse has
# changed, since CMake would keep the old one. All scripts make warnings errors, since the flag is part of
# the compiler cache's key.
configure() {
    local preset=$1 fuse=$2 before
    local dir=$build_root/$preset
    shift 2
    before=$(sed -n 's/^IPCFS_FUSE_PREFIX:[A-Z]*=//p' "$dir/CMakeCache.txt" 2>/dev/null || true)
    if [[ -e $dir/CMakeCache.txt && $before != "$fuse" ]]; then rm -f "$dir/CMakeCache.txt"; fi
    (cd "$repo" && quietly "$build_root/log/configure-$preset.log" \
        cmake --preset "$preset" "-DIPCFS_FUSE_PREFIX=$fuse" -DIPCFS_WERROR=ON "$@") || die "could not configure $preset"
}

# build PRESET [TARGET...]
build() {
    local preset=$1 start=$SECONDS
    shift
    say "building $preset"
    if [[ -t 2 ]]; then
        ninja -C "$build_root/$preset" -j "$jobs" "$@" >&2 || die "could not build $preset"
    else
        quietly "$build_root/log/build-$preset.log" ninja -C "$build_root/$preset" -j "$jobs" "$@" ||
            die "could not build $preset"
    fi
    note "$preset is built ($(seconds_since "$start") s)"
}

# has_target PRESET NAME
has_target() { ninja -C "$build_root/$1" -t targets all 2>/dev/null | grep -q "^$2: "; }
