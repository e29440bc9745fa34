"""Pieces that every other part uses: files written whole, checks of arguments, progress bars, the machine."""
