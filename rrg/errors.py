"""Errors that end a command with a message instead of a traceback, beside Python's own."""


class ReportsUnavailable(RuntimeError):
    """The reports could not be fetched or read; the message says why and what to do."""


class TrainingError(RuntimeError):
    """The run cannot go on; the message says what is left and what to do."""
