"""The error of a command that could not do what it was asked."""


class CommandFailed(Exception):
    """Ends the program with exit code 1 and this message, on stderr."""
