"""What has to hold before anything of a job, or of the sequence that it stands in, is started on this machine."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobctl.backend import Release
from jobctl.errors import RefusedError
from jobctl.local.environment import guarded_by
from jobctl.local.secrets import read_secrets
from jobctl.local.translate import translate


def admit(release: Release, home: Path, environ: Mapping[str, str], allowed: Collection[str]) -> None:
    """Raise RefusedError for what can't run here, for a secret that can't be had, and for variables that run code.

    allowed: the names of such variables that the user has typed, which no file can do.
    """
    for key, name in _names(release.values):
        if name not in allowed and (reason := guarded_by(name)):
            raise RefusedError(
                f"{key}.{name} is refused on this machine, where jobs run as you: {reason}. "
                f"If you trust the spec and the team's jobctl.yaml with that, say --allow-env {name}."
            )
    read_secrets(translate(release.manifest), home, environ)


def _names(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("env", "secretEnv"):
        for name, value in (values.get(key) or {}).items():
            if value is not None:
                yield key, name
