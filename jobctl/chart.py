"""Where the charts are: inside the wheel, or beside the package in a checkout."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jobctl.errors import JobctlError
from jobctl.version import __version__

PACKAGE = Path(__file__).resolve().parent


@cache
def chart_directory(name: str = "jobctl") -> Path:
    """The directory of the chart of this name. Raises JobctlError where it is missing or another jobctl's."""
    directory = _find(name)
    stated = re.search(r"^version: (\S+)$", (directory / "Chart.yaml").read_text(encoding="utf-8"), re.MULTILINE)
    version = stated[1] if stated else None
    if version != __version__:
        raise JobctlError(
            f"The chart {directory} is version {version} but jobctl is {__version__}: install jobctl again, "
            "so that both come from one place."
        )
    return directory


def profile_names() -> list[str]:
    """The GPU profiles that the chart knows, `cpu` among them, sorted."""
    return sorted(path.stem for path in (chart_directory() / "profiles").glob("*.yaml"))


def _find(name: str) -> Path:
    candidates = (PACKAGE / "_charts" / name, PACKAGE.parent / "charts" / name)
    for candidate in candidates:
        if (candidate / "Chart.yaml").is_file():
            return candidate
    raise JobctlError(f"The chart {name!r} is neither in {candidates[0]} nor in {candidates[1]}: install jobctl again.")


def read_yaml(path: Path) -> Any:
    """One YAML document of the chart. It is part of jobctl: what is wrong with it is no user's error."""
    import yaml

    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
