#compdef grid
# Completion of grid in zsh.  What is offered is asked of `grid __complete`.
_grid() {
    local line value
    local -a reply values shown open_values open_shown
    reply=("${(@f)$("${(Q)words[1]}" __complete zsh -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)}")
    case "${reply[1]}" in
        files) _files; return ;;
        folders) _files -/; return ;;
        words) ;;
        *) return 1 ;;
    esac
    for line in "${(@)reply[2,-1]}"; do
        value="${line%%$'\t'*}"
        case "$value" in
            (*[/:=]|*-exp) open_values+=("$value"); open_shown+=("${line/$'\t'/  -- }") ;;
            (?*) values+=("$value"); shown+=("${line/$'\t'/  -- }") ;;
        esac
    done
    (( $#values + $#open_values )) || return 1
    (( $#values )) && compadd -l -d shown -a values
    (( $#open_values )) && compadd -l -S '' -d open_shown -a open_values
    return 0
}
if [ "$funcstack[1]" = "_grid" ]; then
    _grid "$@"
else
    compdef _grid grid
fi
