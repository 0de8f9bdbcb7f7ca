# bash completion for ipcfs(1): subcommands, options, channels from the mounted tree, settings and
# their values. Needs nothing of the bash-completion package but to be sourced.

# The root of the tree that the command line means: --mount, else $IPCFS_MOUNT, else /ipc.
_ipcfs_root() {
    local i root=${IPCFS_MOUNT:-/ipc}
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --mount) root=${COMP_WORDS[i + 1]} ;;
            --mount=*) root=${COMP_WORDS[i]#--mount=} ;;
        esac
    done
    # shellcheck disable=SC2088  # the word is as typed: its tilde is not expanded yet
    case $root in
        '~/'*) root=$HOME/${root#'~/'} ;;
    esac
    printf '%s' "${root%/}"
}

# Channels that go on from the word, and, with a slash, those that have sub-channels.
_ipcfs_channels() {
    local root word=$1 base dir
    root=$(_ipcfs_root)
    if [[ $word == /* ]]; then base=''; else base=$root/; fi
    local path name
    for path in "$base$word"*; do
        [[ -d $path && -e $path/ctl ]] || continue
        # Anybody may make a channel: a name like $(...) must not come onto the command line raw.
        printf -v name %q "${path#"$base"}"
        COMPREPLY+=("$name")
        for dir in "$path"/*/; do
            if [[ -e ${dir}ctl ]]; then
                COMPREPLY+=("$name/")
                break
            fi
        done
    done
    # A path into the tree starts with directories that are no channels.
    if [[ $word == /* && ${#COMPREPLY[@]} -eq 0 && $root/ == "$word"* ]]; then
        COMPREPLY=("$root/")
        compopt -o nospace 2>/dev/null
    fi
    # What is completed up to a slash is not finished.
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]]; then compopt -o nospace 2>/dev/null; fi
}

_ipcfs_words() {
    local IFS=$' \t\n'
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_ipcfs_settings() {
    local root channel=$1
    root=$(_ipcfs_root)
    [[ $channel == /* ]] || channel=$root/$channel
    if [[ -r $channel/ctl ]]; then
        local key rest
        while read -r key rest; do printf '%s ' "$key"; done <"$channel/ctl"
    else
        printf 'type capacity bytes max-message max-payload payloads high-watermark low-watermark overflow schedule ttl '
        printf 'timeout durable max-deliveries lease batch retain notify-rate '
    fi
}

# Subscriptions of a topic, as they are after --name.
_ipcfs_subscriptions() {
    local channel=$1 word=$2 path name
    [[ -n $channel ]] || return 0
    [[ $channel == /* ]] || channel=$(_ipcfs_root)/$channel
    for path in "$channel"/subs/*; do
        [[ -d $path && ${path##*/} == "$word"* ]] || continue
        printf -v name %q "${path##*/}"
        COMPREPLY+=("$name")
    done
}

# Those of all channels that go on from the word, for what works on a queue: TOPIC/subs/NAME.
_ipcfs_queues() {
    local word=$1 root base path name
    _ipcfs_channels "$word"
    root=$(_ipcfs_root)
    if [[ $word == /* ]]; then base=''; else base=$root/; fi
    for path in "$base$word"*/subs/* "$base$word"*; do
        [[ $path == */subs/* && -e $path/filter && $path != */subs/*/* ]] || continue
        printf -v name %q "${path#"$base"}"
        [[ " ${COMPREPLY[*]} " == *" $name "* ]] || COMPREPLY+=("$name")
    done
}

# Shared regions of a channel, as `revoke` wants them.
_ipcfs_regions() {
    local channel=$1 word=$2 path name
    [[ $channel == /* ]] || channel=$(_ipcfs_root)/$channel
    for path in "$channel"/share/*; do
        [[ -f $path && share/${path##*/} == "$word"* ]] || continue
        printf -v name %q "share/${path##*/}"
        COMPREPLY+=("$name")
    done
}

_ipcfs_values() {
    case $1 in
        type) printf 'queue sync batch topic multicast stream' ;;
        durable) printf 'off async sync' ;;
        max-deliveries) printf '1 3 5 10' ;;
        lease) printf '10s 30s 5m 1h' ;;
        batch) printf 'off 64' ;;
        64) printf '5ms 100ms' ;;
        retain) printf '0 1 10 100' ;;
        overflow) printf 'block reject drop-oldest drop-newest' ;;
        schedule) printf 'strict fair' ;;
        payloads) printf 'sealed pooled' ;;
        max-payload) printf '64M 1G 4G 16G' ;;
        ttl | timeout | pause) printf '0 100ms 1s 5s 30s 1m 1h' ;;
        high-watermark) printf '100 90 80 70' ;;
        low-watermark) printf '0 10 20 30' ;;
        capacity) printf '10 100 1000 10000' ;;
        bytes) printf '1M 10M 100M 1G' ;;
        max-message) printf '4K 64K 1044480' ;;
        notify-rate) printf '10/s 100/s 1000/s' ;;
    esac
}

_ipcfs() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' i=1 inner=0
    local -a arguments=()
    COMPREPLY=()
    # The command, and the arguments after it that are no options nor their values.
    for (( ; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            --mount | --timeout | --ttl | --type | --priority | --file | --output | --mode | --set | --count | --watch | \
                --name | --filter | --group | --method | --hold | --command | --jobs | --limit | --retry-delay | --dead-on) ((i++)) ;;
            -t | -p | -f | -m | -s | -n | -w | -o | -g | -j)
                # -p of mkdir and -f of rm are flags.
                case $command${COMP_WORDS[i]} in
                    mkdir-p | rm-f) ;;
                    *) ((i++)) ;;
                esac
                ;;
            --)
                # What follows is the command line of another program.
                if [[ $command == work ]]; then
                    inner=$((i + 1))
                    break
                fi
                ;;
            -*) ;;
            *) if [[ -z $command ]]; then command=${COMP_WORDS[i]}; else arguments+=("${COMP_WORDS[i]}"); fi ;;
        esac
    done

    if ((inner > 0)); then
        if ((COMP_CWORD == inner)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$word")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$word") && compopt -o filenames 2>/dev/null
        fi
        return
    fi

    case $command$previous in
        *--mount) mapfile -t COMPREPLY < <(compgen -d -- "$word") && compopt -o filenames 2>/dev/null; return ;;
        send-f | send--file | pub-f | pub--file | *-o | *--output) mapfile -t COMPREPLY < <(compgen -f -- "$word") && compopt -o filenames 2>/dev/null; return ;;
        send-p | send--priority | pub-p | pub--priority) _ipcfs_words 'critical high normal low' "$word"; return ;;
        send--type | pub--type) _ipcfs_words 'data event request response error control text/plain application/json' "$word"; return ;;
        mkdir-t | mkdir--type) _ipcfs_words 'queue sync batch topic multicast stream' "$word"; return ;;
        sub--name) _ipcfs_subscriptions "${arguments[0]}" "$word"; return ;;
        sub-f | sub--filter)
            _ipcfs_words 'priority type method sender prefix regex channel recursive group' "$word"
            compopt -o nospace 2>/dev/null
            return
            ;;
        mkdir-m | mkdir--mode | sub-m | sub--mode) _ipcfs_words '700 750 755 770 777' "$word"; return ;;
        mkdir-s | mkdir--set)
            _ipcfs_words 'capacity= bytes= max-message= max-payload= payloads= high-watermark= low-watermark= overflow= schedule= ttl= timeout= durable= max-deliveries= lease= batch= retain= notify-rate=' "$word"
            compopt -o nospace 2>/dev/null
            return
            ;;
        *--timeout | *--ttl | *--watch | *--hold | *--limit | *--retry-delay | send-t | pub-t | recv-t | sub-t | lease-t | work-t | down-t | stats-w) _ipcfs_words '0 100ms 1s 5s 30s 1m 1h' "$word"; return ;;
        *-n | *--count) _ipcfs_words '0 1 10 100' "$word"; return ;;
        work-j | work--jobs) _ipcfs_words '1 2 4 8 16' "$word"; return ;;
    esac

    if [[ -z $command ]]; then
        if [[ $word == -* ]]; then
            _ipcfs_words '--mount --json --quiet --help --help-all --version' "$word"
        else
            _ipcfs_words 'up down status ls mkdir rm send recv follow peek pub sub lease dead redrive work ctl stats maps doctor version' "$word"
        fi
        return
    fi
    if [[ $word == -* ]]; then
        local options='--mount --json --quiet --help'
        case $command in
            down) options+=' --timeout' ;;
            ls) options+=' --long --recursive' ;;
            mkdir) options+=' --parents --mode --type --set' ;;
            rm) options+=' --recursive --force' ;;
            send) options+=' --priority --ttl --type --method --lines --file --timeout' ;;
            pub) options+=' --priority --ttl --type --method --group --lines --file --timeout' ;;
            sub) options+=' --name --create --filter --recursive --mode --remove --list --count --timeout --output --null --newline' ;;
            lease) options+=' --ack --nack --dead --hold --command --timeout --output --null --newline' ;;
            dead) options+=' --take --count --output --null --newline' ;;
            work) options+=' --jobs --count --once --drain --timeout --limit --retry-delay --dead-on --' ;;
            recv) options+=' --count --timeout --output --null --newline' ;;
            follow) options+=' --output --null --newline' ;;
            maps) options+=' --all' ;;
            stats) options+=' --watch' ;;
        esac
        _ipcfs_words "$options" "$word"
        return
    fi
    case $command in
        mkdir | rm) _ipcfs_channels "$word" ;;
        recv | follow | peek | status | lease | dead | redrive | work)
            if [[ ${#arguments[@]} -eq 0 ]]; then
                _ipcfs_queues "$word"
            elif [[ $command == work && ${#arguments[@]} -eq 1 ]]; then
                _ipcfs_words '--' "$word"
            fi
            ;;
        ls | send | pub | sub | maps)
            if [[ ${#arguments[@]} -eq 0 ]]; then _ipcfs_channels "$word"; fi
            ;;
        stats)
            if [[ ${#arguments[@]} -eq 0 ]]; then
                _ipcfs_words 'messages channels mappings notifications resources' "$word"
                _ipcfs_channels "$word"
            fi
            ;;
        ctl)
            if [[ ${#arguments[@]} -eq 0 ]]; then
                _ipcfs_channels "$word"
            elif ((${#arguments[@]} % 2 == 1)); then
                _ipcfs_words "$(_ipcfs_settings "${arguments[0]}") purge pause resume redrive revoke" "$word"
            elif [[ ${arguments[-1]} == revoke ]]; then
                _ipcfs_regions "${arguments[0]}" "$word"
            else
                _ipcfs_words "$(_ipcfs_values "${arguments[-1]}")" "$word"
            fi
            ;;
    esac
}

complete -F _ipcfs ipcfs
