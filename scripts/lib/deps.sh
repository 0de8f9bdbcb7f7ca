# shellcheck shell=bash
# Debian packages that the build and the tests need; installs missing ones. Sourced after common.sh.

# clang 16, not Debian 12's default 14, which cannot parse g++ 12's C++20 library; it runs the fuzz
# targets and clang-tidy. clang-format stays 14: its output differs between versions.
build_packages=(
    g++ cmake ninja-build pkg-config ccache ca-certificates python3
    libfuse3-dev fuse3 libboost1.81-dev libspdlog-dev libtomlplusplus-dev libcli11-dev
    nlohmann-json3-dev libsystemd-dev liburing-dev libre2-dev libgtest-dev liblmdb-dev
)
libfuse_packages=(meson ninja-build pkg-config xz-utils)
test_packages=(
    bats inotify-tools acl attr strace util-linux bsdextrautils man-db procps clang-format-14 shellcheck
)
# Needed only by `scripts/test --all`: clang-tidy and the fuzz targets.
all_test_packages=(clang-16 clang-tidy-16 libclang-rt-16-dev)
# The servers that the benchmarks compare ipcfs with. Installed but not started, see install_servers.
bench_packages=(redis-server nats-server dbus-daemon)

# missing_packages NAME...: prints those of the packages that are not installed, one a line.
missing_packages() {
    local name
    for name in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || echo "$name"
    done
}

# install_packages NAME...: installs missing packages; quick if there are none.
install_packages() {
    local -a missing
    if ! command -v dpkg-query >/dev/null; then
        warn "this is no Debian: make sure that these are installed: $*"
        return 0
    fi
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    if ! is_root; then
        die "packages are missing; as root, run: apt-get update && apt-get install ${missing[*]}"
    fi
    say "installing ${missing[*]}"
    quietly "$build_root/log/apt-update.log" apt-get update ||
        warn "apt-get update failed; trying with the package lists that are there"
    quietly "$build_root/log/apt-install.log" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends "${missing[@]}" ||
        die "could not install the packages"
}

# install_servers NAME...: the same for packages with services, which are neither started nor enabled.
# The benchmarks start their own servers.
install_servers() {
    local -a missing=()
    ! command -v dpkg-query >/dev/null || mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    local policy=/usr/sbin/policy-rc.d own='' status=0 name
    # invoke-rc.d and deb-systemd-invoke ask it (Debian's README.policy-rc.d); 101: forbidden.
    if is_root && [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && own=1
    fi
    (install_packages "${missing[@]}") || status=$?
    [[ -z $own ]] || rm -f "$policy"
    ((status == 0)) || exit "$status"
    for name in "${missing[@]}"; do
        command -v systemctl >/dev/null || break
        [[ -e /lib/systemd/system/$name.service ]] || continue
        systemctl --quiet disable "$name.service" 2>/dev/null || warn "could not disable $name"
    done
}
