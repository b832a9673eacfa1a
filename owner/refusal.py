"""The one error of its own that the owner's program has; apart, so that the command line starts without torch."""

from protocol.errors import OwnerError


class Refused(OwnerError):
    """The owner's program will not sign: a claim does not hold (exit code 3)."""

    reason = "refused"
