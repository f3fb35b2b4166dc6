"""What a run of jobctl has said, for tests that type its commands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What stands on stderr beside the backend's line."""
        return "".join(line + "\n" for line in self.err.splitlines() if not line.startswith("backend: ")).strip()
