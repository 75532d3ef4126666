"""How does zsh complete the words of tfprune?"""

SCRIPT = r"""#compdef tfprune
# Completes tfprune in zsh. Written by `tfprune completion zsh`; print it anew after an update.

_tfprune_flags() {  # command -> the array flags
    case $$1 in
$flags
    esac
}

_tfprune_takes() {  # command, flag -> the array takes: how many values, and which
    case "$$1 $$2" in
$values
        *) takes=(none) ;;
    esac
}

_tfprune() {
    local command flag seen value
    local -a flags takes commands
    commands=(
$commands
    )
    takes=(none)
    for seen in $${words[2,CURRENT-1]}; do
        case $$seen in
            -*) flag=$$seen; _tfprune_takes "$$command" "$$flag"; [[ $$takes[1] == none ]] && flag= ;;
            *) if [[ -z $$command ]]; then command=$$seen; elif [[ $$takes[1] == one ]]; then flag=; takes=(none); fi ;;
        esac
    done
    if [[ -z $$command ]]; then
        _describe command commands
        return
    fi
    if [[ $$PREFIX == --*=* ]]; then
        flag=$${PREFIX%%=*}
        compset -P '*='
    elif [[ $$PREFIX == -* ]]; then
        _tfprune_flags "$$command"
        _describe flag flags
        return
    fi
    _tfprune_takes "$$command" "$$flag"
    compset -P '*,'  # the last name of a list a,b,c
    for value in $${takes[2,-1]}; do
        case $$value in
            /) _files -/ ;;
            \*.*) _files -g "$$value" ;;
            *) compadd -- "$$value" ;;
        esac
    done
}

if [[ $$funcstack[1] == _tfprune ]]; then
    _tfprune "$$@"
else
    compdef _tfprune tfprune
fi
"""


def parts(helps, flags):
    """Returns what is put into `SCRIPT`.

    Args:
        helps: `{command: its line of help}`.
        flags: List of `tfprune.cli.completion.Flag`.
    """
    by_command = {name: [flag for flag in flags if flag.command == name and flag.name] for name in helps}
    return {
        "commands": "\n".join(f"        {_described(name, text)}" for name, text in helps.items()),
        "flags": "\n".join(
            f"        {name}) flags=({' '.join(_described(flag.name, flag.help) for flag in found)}) ;;"
            for name, found in by_command.items()
        ),
        "values": "\n".join(
            f"        {_quoted(f'{flag.command} {flag.name}')}) takes=({_words(flag)}) ;;"
            for flag in flags
            if flag.takes != "none"
        ),
    }


def _words(flag):
    return " ".join(map(_quoted, [flag.takes, *flag.values]))


def _described(name, text):
    return _quoted(f"{name}:{text.replace(':', ' -')}")


def _quoted(text):
    return "'" + text.replace("'", r"'\''") + "'"
