"""How does each shell complete words? A template and the parts that are put into it, a shell a module."""

from tfprune.cli.shells import bash, fish, zsh

SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
