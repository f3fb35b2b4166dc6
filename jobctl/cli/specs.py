"""From submit's flags to checked specs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobctl import documents
from jobctl.errors import UsageError
from jobctl.schema import read_defaults, setting_names, takes_text
from jobctl.spec import NAME_LENGTH, Asked, ask

# flag → the spec's key, where they differ
KEYS = {"allow_cpu": "allowCpu", "from_run": "from"}


def asked_of(flags: dict[str, Any], note: Callable[[str], object] = lambda sentence: None) -> list[Asked]:
    """The jobs that this command line asks for, in order. Raises UsageError.

    `note` is told which files of the team's took part, and what they set: such a file is found, not named.
    """
    flags = dict(flags)
    kind, path, assignments = flags.pop("kind"), flags.pop("path"), flags.pop("assignments")
    if not kind and not path:
        raise UsageError("Say what to run: a kind (collect, train or eval), or a file with -f.")
    over = {KEYS.get(flag, flag): value for flag, value in flags.items() if value is not None}
    file = Path(path) if path else None
    if "name" not in over:
        over["name"] = _default_name(file, kind, over.get("task"))
    if file is not None and flags["name"] and (count := len(documents.read(file, takes_text))) > 1:
        raise UsageError(f"{file} has {count} documents: --name is for one, so give each its name in the file.")
    jobs = ask(
        file,
        kind=kind,
        flags={key: value for key, value in over.items() if value is not None},
        assignments=[_with_settings(text) for text in assignments],
    )
    for path, keys in jobs[0].team:
        note(f"defaults: {path} sets {', '.join(keys)}")
    return jobs


def _default_name(file: Path | None, kind: str | None, task: str | None) -> str | None:
    """KIND-TASK for a job of flags alone; the file's name for a single document without one."""
    if file is None:
        return f"{kind}-{task or read_defaults()['task']}"
    found = documents.read(file, takes_text)
    if len(found) > 1 or "name" in found[0]:
        return None
    stem = re.sub(r"[^a-z0-9]+", "-", file.stem.lower()).strip("-")[:NAME_LENGTH].strip("-")
    return stem or None


def _with_settings(assignment: str) -> str:
    """`stpes=400` as `settings.stpes=400`, which is nearer than any key of a spec: the error names what was meant."""
    from difflib import get_close_matches

    key = assignment.partition("=")[0].strip()
    keys = {"name", *read_defaults()}
    close = [] if key.partition(".")[0] in keys else get_close_matches(key, keys | setting_names(), n=1)
    return f"settings.{assignment}" if close and close[0] not in keys else assignment
