"""How does bash complete the words of tfprune? Works in bash 3.2, as macOS has it, and without bash-completion."""

SCRIPT = r"""# Completes tfprune in bash. Written by `tfprune completion bash`; print it anew after an update.

_tfprune_commands="$commands"

_tfprune_flags() {  # command
    case $$1 in
$flags
    esac
}

_tfprune_takes() {  # command, flag -> how many values it takes, and which
    case "$$1 $$2" in
$values
        *) echo none ;;
    esac
}

_tfprune_complete() {  # values, word
    local value head= last=$${2##*,}  # of a list a,b,c the last name is completed
    [[ $$2 == *,* ]] && head=$${2%,*},
    local IFS=$$'\n'
    for value in $$(printf '%s\n' "$$1" | tr ' ' '\n'); do
        if [[ $$value == / || $$value == \*.* ]]; then
            COMPREPLY+=($$(compgen -d -- "$$2"))
            [[ $$value == / ]] || COMPREPLY+=($$(compgen -f -X "!$$value" -- "$$2"))
            compopt -o filenames 2>/dev/null
        elif [[ $$value == "$$last"* ]]; then
            COMPREPLY+=("$$head$$value")
        fi
    done
}

_tfprune() {
    local word=$${COMP_WORDS[COMP_CWORD]} command= flag= takes=none seen i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        seen=$${COMP_WORDS[i]}
        case $$seen in
            =) continue ;;  # --flag=value comes as three words
            -*) flag=$$seen; takes=$$(_tfprune_takes "$$command" "$$flag"); [[ $$takes == none ]] && flag= ;;
            *) if [[ -z $$command ]]; then command=$$seen; elif [[ $$takes == one* ]]; then flag=; takes=none; fi ;;
        esac
    done
    [[ $$word == "=" ]] && word=
    if [[ -z $$command ]]; then
        _tfprune_complete "$$_tfprune_commands" "$$word"
    elif [[ $$word == -* ]]; then
        _tfprune_complete "$$(_tfprune_flags "$$command")" "$$word"
    else
        takes=$$(_tfprune_takes "$$command" "$$flag")
        takes=$${takes#* }
        case $$takes in one|many|none) ;; *) _tfprune_complete "$$takes" "$$word" ;; esac
    fi
}

complete -F _tfprune tfprune
"""


def parts(helps, flags):
    """Returns what is put into `SCRIPT`.

    Args:
        helps: `{command: its line of help}`.
        flags: List of `tfprune.cli.completion.Flag`.
    """
    by_command = {name: [flag.name for flag in flags if flag.command == name and flag.name] for name in helps}
    return {
        "commands": " ".join([*helps, "--help", "--version"]),
        "flags": "\n".join(f"        {name}) echo '{' '.join(found)}' ;;" for name, found in by_command.items()),
        "values": "\n".join(
            f"        '{flag.command} {flag.name}') echo '{' '.join([flag.takes, *flag.values])}' ;;"
            for flag in flags
            if flag.takes != "none"
        ),
    }
