"""`tfprune completion`: a script that completes commands, flags and names in bash, zsh or fish.

The script is written from the parsers themselves, so it knows every flag, and holds all names, so that the Tab key
starts no Python. What stands behind a flag is said by the attribute `completes` of its `argparse` action: keys of
`tfprune.cli.names.KNOWN`, patterns of files such as "*.keras", and "/" for folders, with spaces between.
"""

import dataclasses
import string

from tfprune.cli import names
from tfprune.cli.answer import Answer
from tfprune.cli.shells import SCRIPTS

HELP = "print a script that completes tfprune's words in your shell"
DESCRIPTION = (
    "Prints the script. Bash: tfprune completion bash > ~/.local/share/bash-completion/completions/tfprune. "
    "Zsh: tfprune completion zsh > DIR/_tfprune, where DIR is in $fpath. "
    "Fish: tfprune completion fish > ~/.config/fish/completions/tfprune.fish. Print it anew after an update."
)


def add_arguments(command):
    """Adds the words and flags of the command to its parser."""
    command.add_argument("shell", choices=tuple(SCRIPTS), help="bash, zsh or fish")


def run(options):
    """Returns the script."""
    script = write_script(options.shell)
    return Answer({"shell": options.shell, "script": script}, script)


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a command, or what stands without one.

    Args:
        command: The command's name.
        name: Such as "--seeds"; empty for what stands without a flag.
        help: One line.
        takes: "none", "one" or "many" values.
        values: Names, patterns of files and "/" for folders, that may stand behind it.
    """

    command: str
    name: str
    help: str
    takes: str
    values: tuple


def write_script(shell):
    """Returns the completion script of a shell.

    Args:
        shell: "bash", "zsh" or "fish".

    Example:

    >>> "complete -F _tfprune tfprune" in write_script("bash")
    True
    """
    from tfprune.cli import program

    parser = program.build_parser()
    module = SCRIPTS[shell]
    commands = program.commands_action(parser)
    helps = {choice.dest: choice.help for choice in commands._choices_actions}
    flags = [
        flag
        for name, command in commands.choices.items()
        for action in command._actions
        for flag in _flags(name, action)
    ]
    return string.Template(module.SCRIPT).substitute(module.parts(helps, flags)).rstrip("\n")


def _flags(command, action):
    takes = "none" if action.nargs == 0 else "many" if action.nargs == "+" else "one"
    values = tuple(value for word in getattr(action, "completes", "").split() for value in _values(word))
    values += tuple(map(str, action.choices or ()))
    for name in [flag for flag in action.option_strings if flag.startswith("--")] or [""]:
        if name or not action.option_strings:
            yield Flag(command, name, " ".join((action.help or "").split()).replace("%%", "%"), takes, values)


def _values(word):
    return names.KNOWN[word]() if word in names.KNOWN else (word,)
