# Completion of grid in fish.  What is offered is asked of `grid __complete`.
function __grid_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l reply (command $words[1] __complete fish -- $words 2>/dev/null)
    switch "$reply[1]"
        case files
            __fish_complete_path (commandline -ct)
        case folders
            __fish_complete_directories (commandline -ct)
        case words
            set -e reply[1]
            printf '%s\n' $reply
    end
end
complete --command grid --no-files --arguments '(__grid_complete)'
