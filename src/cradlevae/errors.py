"""Exceptions whose message is all that a user needs; the command line prints it without a traceback."""


class CradleError(Exception):
    """Base of the package's own errors."""


class DataError(CradleError, ValueError):
    """Input that cannot be worked with: the message names what, where and how to mend it."""


class TrainingError(CradleError, RuntimeError):
    """Training that cannot go on: the message names the batch, the term and what to try."""
