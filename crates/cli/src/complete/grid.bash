# Completion of grid in bash.  What is offered is asked of `grid __complete`.
_grid() {
    local program="${1/#\~/$HOME}" line="${COMP_LINE:0:COMP_POINT}" piece i
    local -a words=() reply=()
    # bash takes words apart at `:` and `=`, which stand within names and flags of grid.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece="${COMP_WORDS[i]}"
        if ((i == 0)) || [[ "$line" == [[:space:]]* ]]; then
            line="${line#"${line%%[![:space:]]*}"}"
            words+=("")
        fi
        ((i == COMP_CWORD)) && piece="$line"
        words[${#words[@]} - 1]+="$piece"
        line="${line#"$piece"}"
    done
    local word="${words[${#words[@]} - 1]}"
    while IFS= read -r piece; do
        reply+=("$piece")
    done < <("$program" __complete bash -- "${words[@]//\\/}" 2>/dev/null)
    COMPREPLY=()
    case "${reply[0]}" in
        files)
            compopt -o default -o bashdefault 2>/dev/null
            return ;;
        folders)
            compopt -o dirnames 2>/dev/null
            return ;;
        words) ;;
        *) return ;;
    esac
    # What is before the last `:` or `=` stays where it is, if bash broke the word there.
    local kept="" breaks="${COMP_WORDBREAKS//[^:=]/}"
    if [[ -n "$breaks" && "$word" == *[$breaks]* ]]; then
        kept="${word%"${word##*[$breaks]}"}"
    fi
    for ((i = 1; i < ${#reply[@]}; i++)); do
        piece="${reply[i]}"
        [[ "$piece" == *[/:=] || "$piece" == *-exp ]] && compopt -o nospace 2>/dev/null
        piece="${piece#"$kept"}"
        [[ "$piece" == *[\ \'\"\$\`\&\;\|\<\>\(\)\*\?\[\]\{\}\!\#\\]* ]] && printf -v piece %q "$piece"
        COMPREPLY+=("$piece")
    done
}
complete -F _grid grid
