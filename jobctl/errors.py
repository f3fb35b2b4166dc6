"""Exceptions and the exit status that each one carries.

    JobctlError            1
    ├── UsageError         2   bad spec, flag, file, setting
    ├── NotFoundError      3   no such job, result, replica
    ├── UnreachableError   4   the cluster doesn't answer
    └── RefusedError       5   the backend or the cluster says no
        └── OvertakenError     another call is at work on the same job: look again, and decide anew

Each message says what failed, on which object, and what to try.
"""

from collections.abc import Iterable


class JobctlError(Exception):
    """Anything that jobctl tells its user in one sentence instead of a traceback."""

    exit_status = 1


class UsageError(JobctlError):
    exit_status = 2


class NotFoundError(JobctlError):
    exit_status = 3


class UnreachableError(JobctlError):
    exit_status = 4


class RefusedError(JobctlError):
    exit_status = 5


class OvertakenError(RefusedError):
    """The job is no longer what this call has seen of it: another call came first. Nothing was done."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause that names what was probably meant: ` (did you mean 'steps'?)`, or all that is known."""
    from difflib import get_close_matches

    names = sorted(known)
    close = get_close_matches(word, names, n=2)
    if close:
        return f" (did you mean {' or '.join(repr(name) for name in close)}?)"
    return f" (known: {', '.join(names)})"
