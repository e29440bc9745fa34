"""Helpers that every other part uses: atomic writing of files, checks of arguments, progress bars, the machine."""
