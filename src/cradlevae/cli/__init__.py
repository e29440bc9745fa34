"""The command line: ``cradlevae COMMAND``, with the options that the command's function has."""

from cradlevae.cli.invoke import main

__all__ = ["main"]
