"""Exceptions of the workers and the exit code that each one carries (the Job's podFailurePolicy reads them).

WorkerError
├── BadConfigError    64   never retried
├── BadDataError      65   never retried
├── GateMissedError   66   never retried
├── StuckError        70   three attempts without progress: never retried
├── InterruptedRun    75   state is saved: retried, not counted
└── PeersLostError    76   peers lost for longer than the rendezvous timeout: retried, not counted
"""

CRASHED = 1  # any other exception: retried, counted


class WorkerError(Exception):
    """Ends an attempt with `code`; the message is one sentence for whoever reads `jobctl status`."""

    code = CRASHED


class BadConfigError(WorkerError):
    code = 64


class BadDataError(WorkerError):
    code = 65


class GateMissedError(WorkerError):
    code = 66


class StuckError(WorkerError):
    code = 70


class InterruptedRun(WorkerError):  # noqa: N818 - being interrupted is no error
    code = 75


class PeersLostError(WorkerError):
    code = 76


TERMINAL_CODES = frozenset({64, 65, 66, 70})
