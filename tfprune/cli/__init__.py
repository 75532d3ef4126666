"""What can tfprune do from the command line? A module a command; heavy packages load only once a command needs them."""

from tfprune.cli.program import main

__all__ = ["main"]
