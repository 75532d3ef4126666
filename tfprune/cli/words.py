"""How are lists, numbers and seeds written on the command line?"""

import argparse


def words(text):
    """Reads "a,b c" as ("a", "b", "c")."""
    return tuple(text.replace(",", " ").split())


def numbers(text):
    """Reads "0,0.5" as (0.0, 0.5)."""
    return _read(text, float, "numbers such as 0,0.5,0.9")


def integers(text):
    """Reads "1,3" as (1, 3)."""
    return _read(text, int, "whole numbers such as 1,3,5")


def seeds(text):
    """Reads "0,1,2" and "0-9"."""
    try:
        bounds = [word.partition("-") for word in words(text)]
        found = tuple(seed for first, _, last in bounds for seed in range(int(first), int(last or first) + 1))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seeds such as 0,1,2 or 0-9; received: {text}") from error
    if not found:
        raise argparse.ArgumentTypeError(f"expected seeds in rising order such as 0-9; received: {text}")
    return found


def _read(text, kind, expected):
    try:
        return tuple(kind(word) for word in words(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected {expected}; received: {text}") from error


class Joined(argparse.Action):
    """Takes a list written with commas, with spaces, or both."""

    def __call__(self, parser, namespace, values, option_string=None):
        """Joins what stands behind the flag."""
        setattr(namespace, self.dest, tuple(item for value in values for item in value))


def add_list(command, flag, kind, help, completes="", metavar="LIST", dest=None):
    """Adds a flag that takes a list, written with commas, with spaces, or both.

    Args:
        command: The command's parser.
        flag: Such as "--seeds".
        kind: Function that reads a part of the list: `words`, `numbers`, `integers` or `seeds`.
        help: One line.
        completes: What the shell completes behind it, see `tfprune.cli.completion`.
        metavar: How the help calls its value.
        dest: Where the value is kept; by default under the flag's name.
    """
    more = {"dest": dest} if dest else {}
    action = command.add_argument(flag, type=kind, nargs="+", action=Joined, metavar=metavar, help=help, **more)
    action.completes = completes
