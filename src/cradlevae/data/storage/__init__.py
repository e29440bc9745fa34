"""Counts and cells in memory, in files and in folders of files, and writers that work block by block."""
