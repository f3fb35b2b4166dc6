"""What a spec's secretEnv is on one machine: a file of the user's, or a variable of the shell that submits."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from jobctl.errors import RefusedError
from jobctl.local.plan import EnvVar, LocalJob

MOST_BYTES = 131_072  # what Linux takes for one variable


def secrets_directory(home: Path) -> Path:
    """Where each Secret has a directory, and each of its keys a file."""
    return home / "secrets"


def read_secrets(job: LocalJob, home: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """{variable: value} of all variables that come out of Secrets. Raises RefusedError for one that can't be had."""
    return {
        variable.name: _value(variable, *variable.secret, home, environ)
        for variable in job.template.container.env
        if variable.secret is not None
    }


def _value(variable: EnvVar, secret: str, key: str, home: Path, environ: Mapping[str, str]) -> str:
    path = secrets_directory(home) / secret / key
    try:
        value = _content(path)
    except FileNotFoundError:
        if variable.name not in environ:
            raise RefusedError(
                f"secretEnv.{variable.name} (a secretKeyRef on a cluster): there is neither a file {path} nor a "
                f"variable {variable.name} here. Write the secret into that file (mode 600), or set the variable."
            ) from None
        return environ[variable.name]
    except OSError as error:
        raise RefusedError(f"secretEnv.{variable.name}: {path} can't be read: {error.strerror or error}.") from error
    if "\0" in value or len(value) + len(variable.name) + 2 > MOST_BYTES:
        raise RefusedError(f"secretEnv.{variable.name}: what is in {path} holds U+0000 or is too long for a variable.")
    return value


def _content(path: Path) -> str:
    """As the system encodes variables: bytes that are no UTF-8 arrive, too. Raises OSError, RefusedError."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError(f"{path} is no file: a secret is read from a plain file.")
        if status.st_mode & 0o077:
            raise RefusedError(f"{path} can be read by others (mode {status.st_mode & 0o777:o}): chmod 600 {path}")
        return os.fsdecode(file.read(MOST_BYTES + 1))
