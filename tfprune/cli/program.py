"""How does a line of words become a command, its answer and an exit code?

A command is a module of this package, named in `COMMANDS`, with

    HELP                       one line, for the list of commands
    DESCRIPTION                a few, for its own --help
    add_arguments(command)     adds its words and flags to an `argparse` parser
    run(options) -> Answer     does it

What a command prints while it works is a note: it goes to the error output, and nowhere under --quiet. What it found it
returns as an `Answer`, which goes to the output, as text or as JSON.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import sys

from tfprune import __version__
from tfprune.cli import mistakes
from tfprune.cli.answer import plain

COMMANDS = (
    "study",
    "prune",
    "export",
    "evaluate",
    "compare",
    "inspect",
    "report",
    "verify-metrics",
    "verify-models",
    "completion",
)

_DESCRIPTION = "Removes whole channels from Keras models and tells what that did to their confidences."
_CODES = (
    "exit codes: 0 done; 1 a check found something, or a trial failed; 2 a mistake that you can mend, said in one "
    "line; 130 stopped by Ctrl-C."
)


_OURS = re.compile(r"Received: |Install it: ")


def main(arguments=None):
    """Runs one command and returns its exit code.

    0 is success, 1 a check that found something or a trial that failed, 2 what the user can mend, 130 Ctrl-C.

    Args:
        arguments: List of words after `tfprune`; those of the process by default.

    Example:

    >>> main(["study", "moons", "--quick"])
    """
    # Before TensorFlow loads: its start-up notes are no answer to any command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    options = argparse.Namespace()
    try:
        _parse([str(word) for word in (sys.argv[1:] if arguments is None else arguments)], options)
        answer = _answer(options)
        print(_shown(answer, options.json), flush=True)
        return answer.code
    except SystemExit as stop:  # --help and --version
        return stop.code or 0
    except BrokenPipeError:  # `tfprune inspect ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, RuntimeError, TypeError, ImportError) as error:
        if isinstance(error, TypeError | ImportError) and not _OURS.search(str(error)):
            raise  # not a refusal of ours but a bug, whose place matters
        print(f"tfprune: error: {mistakes.in_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ntfprune: stopped.{getattr(options, 'resume_hint', '')}", file=sys.stderr)
        return 130


def build_parser():
    """Returns the parser of all commands; completion scripts are written from it."""
    parser = _Parser(prog="tfprune", description=_DESCRIPTION, epilog=_CODES, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tfprune {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name in COMMANDS:
        module = _module(name)
        command = commands.add_parser(
            name, help=module.HELP, description=module.DESCRIPTION, epilog=_CODES, allow_abbrev=False
        )
        module.add_arguments(command)
        command.add_argument("--json", action="store_true", help="answer with one JSON document")
        command.add_argument("--quiet", action="store_true", help="no progress and no notes, only the answer")
        command.set_defaults(run=module.run)
    return parser


def commands_action(parser):
    """Returns the part of the parser that holds the commands: `.choices` is `{command: its parser}`."""
    return next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def _module(command):
    return importlib.import_module(f"tfprune.cli.{command.replace('-', '_')}")


class _Parser(argparse.ArgumentParser):
    """Raises its complaints, so that all mistakes are told in one place and in one way."""

    def error(self, message):
        raise ValueError(f"{message}. See {self.prog} --help.")


def _parse(words, options):
    parser = build_parser()
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise ValueError(f"Unknown command. Received: {command!r}. Expected one of {', '.join(COMMANDS)}.")
    _, extra = parser.parse_known_args(words, options)
    if extra:
        command = commands_action(parser).choices[options.command]
        flags = [flag for action in command._actions for flag in action.option_strings]
        expected = f" Expected one of {', '.join(flags)}." if extra[0].startswith("-") else ""
        raise ValueError(f"tfprune {options.command} does not take this. Received: {extra[0]!r}.{expected}")


def _answer(options):
    """Runs the command; what is printed meanwhile, by whomever, is not its answer."""
    with contextlib.ExitStack() as stack:
        notes = stack.enter_context(open(os.devnull, "w")) if options.quiet else sys.stderr
        stack.enter_context(contextlib.redirect_stdout(notes))
        return options.run(options)


def _shown(answer, as_json):
    return json.dumps(plain(answer.document), allow_nan=False) if as_json else answer.text
