# bash completion for ipcfs(1). The command itself knows what may follow: `ipcfs complete WORD...`
# prints how to go on and the candidates, separated by NUL. Needs nothing of the bash-completion package.
_ipcfs() {
    local word=${COMP_WORDS[COMP_CWORD]} candidate i
    local -a found
    COMPREPLY=()
    mapfile -d '' -t found < <("${COMP_WORDS[0]/#\~/$HOME}" complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    case ${found[0]} in
        nospace) compopt -o nospace 2>/dev/null ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$word") ;;
        files) mapfile -t COMPREPLY < <(compgen -f -- "$word") && compopt -o filenames 2>/dev/null ;;
        directories) mapfile -t COMPREPLY < <(compgen -d -- "$word") && compopt -o filenames 2>/dev/null ;;
    esac
    for ((i = 1; i < ${#found[@]}; i++)); do
        # Anybody may make a channel: a name like $(...) must not come onto the command line raw.
        printf -v candidate %q "${found[i]}"
        COMPREPLY+=("$candidate")
    done
}

complete -F _ipcfs ipcfs
