"""How does fish complete the words of tfprune? Of lists it completes those with commas: its flags have one value."""

SCRIPT = r"""# Completes tfprune in fish. Written by `tfprune completion fish`; print it anew after an update.

function __tfprune_list  # names, of which the last one of a list a,b,c is completed
    set -l head (string replace -r '[^,=]*$$' '' -- (commandline -ct))
    printf '%s\n' (string replace -r '^--[^=]*=' '' -- $$head)$$argv
end

function __tfprune_files  # files with one ending, and folders
    set -l word (commandline -ct)
    for file in $$word*
        string match -q -- "*$$argv[1]" $$file; and echo $$file
    end
    __fish_complete_directories $$word
end

complete -c tfprune -f
complete -c tfprune -n __fish_use_subcommand -l help -d 'show the help'
complete -c tfprune -n __fish_use_subcommand -l version -d 'show the version'
$commands
$flags
"""


def parts(helps, flags):
    """Returns what is put into `SCRIPT`.

    Args:
        helps: `{command: its line of help}`.
        flags: List of `tfprune.cli.completion.Flag`.
    """
    return {
        "commands": "\n".join(
            f"complete -c tfprune -n __fish_use_subcommand -a {name} -d {_quoted(text)}" for name, text in helps.items()
        ),
        "flags": "\n".join(map(_line, flags)),
    }


def _line(flag):
    words = [f"complete -c tfprune -n '__fish_seen_subcommand_from {flag.command}'"]
    if flag.name:
        words += [f"-l {flag.name.removeprefix('--')}", "-d", _quoted(flag.help)]
    if flag.takes != "none":
        words += ["-x"] if flag.name else []
        words += ["-a", _quoted(" ".join(_candidates(flag.values)))] if flag.values else []
    return " ".join(words)


def _candidates(values):
    names = [value for value in values if not value.startswith(("*.", "/"))]
    if names:
        yield f"(__tfprune_list {' '.join(names)})"
    for value in values:
        if value == "/":
            yield "(__fish_complete_directories)"
        elif value.startswith("*."):
            yield f"(__tfprune_files {value[1:]})"


def _quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", r"\'") + "'"
