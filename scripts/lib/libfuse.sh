# shellcheck shell=bash
# libfuse >= 3.18 (passthrough) in a private prefix, built once from the source package of
# a newer Debian suite when the installed one is older. Sourced after common.sh and deps.sh.
#
# It uses the mirror of this machine's apt. apt fetches the suite's index into a private state
# directory, so that it checks the archive's signature and the checksums while the system's own
# sources stay unchanged. The known version is also pinned by checksum.

libfuse_wanted=3.18
libfuse_pinned=3.18.3
libfuse_pinned_sha256=bcd19582c5e30f7fe45dd86a5540e998590aa01903afc7ebcbeea6c8ac5421ee
libfuse_suites=(forky sid)

# at_least VERSION MINIMUM
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# debian_mirror: "URI keyring" of the Debian archive that apt is configured with; keyring may be empty.
debian_mirror() {
    local codename uri keyring
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # Let apt parse both formats of its sources; security and updates suites are on other servers.
    # shellcheck disable=SC2016  # apt's own placeholders
    uri=$(apt-get indextargets --format '$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)' |
        awk -v codename="$codename" '$1 == "Packages" && $4 == "main" &&
            ($3 == codename || $3 == "stable" || $3 == "oldstable") { print $2; exit }')
    [[ -n $uri ]] || return 1
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [[ -r $keyring ]] || keyring='' # then apt uses its own trusted keys
    echo "$uri $keyring"
}

# libfuse_fetch DIR: fetches the upstream tarball into DIR and prints "VERSION TARBALL".
# Reports on stderr how it was verified.
libfuse_fetch() {
    local dir=$1 uri keyring suite version best tarball sum
    local -a apt
    read -r uri keyring < <(debian_mirror) || {
        warn "apt has no source for Debian's main archive"
        return 1
    }
    for suite in "${libfuse_suites[@]}"; do
        rm -rf "$dir/apt"
        mkdir -p "$dir/apt/lists/partial" "$dir/apt/cache/archives/partial"
        echo "deb-src ${keyring:+[signed-by=$keyring]} $uri $suite main" >"$dir/apt/sources.list"
        apt=(-o "Dir::Etc::SourceList=$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
            -o "Dir::State::Lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache"
            -o Acquire::Languages=none -o Acquire::Retries=1 -o Acquire::http::Timeout=30
            -o APT::Sandbox::User=root -o Debug::NoLocking=1)
        # An unsigned or wrongly signed index fails here, so the rest uses a verified one.
        quietly "$build_root/log/libfuse-apt-$suite.log" \
            apt-get "${apt[@]}" -o APT::Update::Error-Mode=any update || continue
        best=''
        while read -r version; do
            if [[ $version == "$libfuse_pinned"-* ]]; then
                best=$version
                break
            fi
            if at_least "${version%-*}" "$libfuse_wanted" && { [[ -z $best ]] || at_least "$version" "$best"; }; then
                best=$version
            fi
        done < <(apt-cache "${apt[@]}" showsrc --only-source fuse3 | awk '$1 == "Version:" { print $2 }')
        if [[ -z $best ]]; then
            note "$suite has no fuse3 of $libfuse_wanted or newer"
            continue
        fi
        if ! (cd "$dir" && quietly "$build_root/log/libfuse-source-$suite.log" \
            apt-get "${apt[@]}" source --download-only --only-source "fuse3=$best"); then continue; fi
        tarball=$(find "$dir" -maxdepth 1 -name 'fuse3_*.orig.tar.*' ! -name '*.asc' | head -n 1)
        [[ -n $tarball ]] || continue
        version=${best%-*}
        if [[ $version == "$libfuse_pinned" ]]; then
            sum=$(sha256sum "$tarball" | cut -d ' ' -f 1)
            if [[ $sum != "$libfuse_pinned_sha256" ]]; then
                warn "$(basename "$tarball") has checksum $sum, not the pinned one: not used"
                rm -f "$tarball"
                continue
            fi
            note "libfuse $version from $suite: the archive's signature and the pinned checksum agree"
        else
            warn "libfuse $libfuse_pinned is gone from $suite; taking $version (verified by the archive's signature, not pinned)"
        fi
        echo "$version $tarball"
        return 0
    done
    return 1
}

# libfuse_build VERSION TARBALL PREFIX
libfuse_build() {
    local version=$1 tarball=$2 prefix=$3 work=$2.d
    mkdir -p "$work"
    tar -xf "$tarball" -C "$work" --strip-components=1 &&
        # Our own rings use libfuse's custom io, so build it without its io_uring (and libnuma).
        (cd "$work" && quietly "$build_root/log/libfuse-meson.log" \
            meson setup build --prefix "$prefix" --libdir=lib --buildtype=release \
            -Dexamples=false -Dtests=false -Dutils=false -Duseroot=false \
            -Denable-io-uring=false -Denable-custom-io=true) &&
        quietly "$build_root/log/libfuse-ninja.log" ninja -C "$work/build" &&
        quietly "$build_root/log/libfuse-install.log" ninja -C "$work/build" install || return 1
    echo "$version" >"$prefix/.complete"
}

# libfuse_prefix: prints the private prefix and builds it if needed. Prints nothing if the
# system's libfuse is new enough, or, with a warning, if no newer one can be obtained.
libfuse_prefix() {
    local system stamp work version tarball prefix
    system=$(pkg-config --modversion fuse3 2>/dev/null || echo 0)
    if at_least "$system" "$libfuse_wanted"; then return 0; fi
    for stamp in "$deps_root"/libfuse-*/.complete; do
        if [[ -e $stamp ]]; then
            dirname -- "$stamp"
            return 0
        fi
    done
    say "libfuse $system is older than $libfuse_wanted: building a newer one, once"
    # In a subshell, so that a package that cannot be installed ends only the subshell.
    (install_packages "${libfuse_packages[@]}") || {
        warn "libfuse cannot be built here: going on with $system (no passthrough; everything else is the same)"
        return 0
    }
    mkdir -p "$deps_root"
    work=$(mktemp -d "$deps_root/fetch.XXXXXX")
    prefix=''
    if read -r version tarball < <(libfuse_fetch "$work") && [[ -n $tarball ]]; then
        prefix=$deps_root/libfuse-$version
        libfuse_build "$version" "$tarball" "$prefix" || prefix=''
    fi
    rm -rf "$work"
    if [[ -z $prefix ]]; then
        warn "no libfuse $libfuse_wanted could be had: going on with $system (no passthrough; everything else is the same)"
        return 0
    fi
    note "libfuse $version is in $prefix"
    echo "$prefix"
}
