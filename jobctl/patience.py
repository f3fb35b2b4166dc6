"""What a command that watches does while the cluster is away: say so once, go on trying, and give up in the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from jobctl.errors import UnreachableError

SECONDS = 120.0  # an API server is upgraded, or a network changed, in less


class Patience:
    """Told of every try: `failed` or `answered`."""

    def __init__(self, note: Callable[[str], None], seconds: float = SECONDS) -> None:
        self._note, self._seconds = note, seconds
        self._away_since: float | None = None

    def failed(self, error: UnreachableError) -> None:
        """Says it the first time. Raises the error once nothing has answered for so many seconds."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            self._note(f"{error} Waiting for it to come back.")
        elif now - self._away_since > self._seconds:
            raise error

    def answered(self) -> None:
        if self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            self._note(f"It answers again, after {seconds:.0f} s.")
