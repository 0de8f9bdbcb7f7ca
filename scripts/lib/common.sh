# shellcheck shell=bash
# Shared by all scripts: paths and messages. Sourced, never run.
# shellcheck disable=SC2034  # used by the scripts that source it

repo=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
build_root=$repo/build
deps_root=$build_root/deps

if [[ -t 2 ]]; then bold=$'\e[1m' yellow=$'\e[33m' red=$'\e[31m' plain=$'\e[0m'; else bold='' yellow='' red='' plain=''; fi

say() { printf '%s==>%s %s\n' "$bold" "$plain" "$*" >&2; }
note() { printf '    %s\n' "$*" >&2; }
warn() { printf '%swarning:%s %s\n' "$yellow" "$plain" "$*" >&2; }
die() { printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2; exit 1; }

is_root() { [[ $(id -u) -eq 0 ]]; }

# quietly LOG COMMAND...: writes the output to LOG and shows its end only if COMMAND fails.
quietly() {
    local log=$1 status=0
    shift
    mkdir -p "$(dirname -- "$log")"
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if ((status != 0)); then
        tail -n 60 -- "$log" >&2
        warn "failed ($status): $*"
        note "the whole output is in $log"
    fi
    return "$status"
}

# usage: prints the calling script's opening comment, without its first line, and exits.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"
    exit "${1:-0}"
}

seconds_since() { echo $((SECONDS - $1)); }
