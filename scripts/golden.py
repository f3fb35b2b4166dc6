"""Write the rendered jobs that tests compare with: tests/chart/specs/*.yaml to tests/chart/golden/*.yaml.

python scripts/golden.py            write them
python scripts/golden.py --check    exit 1 where one is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from jobctl import helm
from jobctl.spec import read_specs
from jobctl.values import values_of

DIRECTORY = Path(__file__).resolve().parent.parent / "tests" / "chart"


class _Dumper(yaml.CSafeDumper):
    """Writes text of several lines, such as a config file, as it stands."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def render(spec_file: Path) -> str:
    """The objects of all jobs in a spec file, as YAML. No team's defaults take part."""
    objects = [
        rendered
        for spec in read_specs(spec_file, environ={"HOME": "/nonexistent"})
        for rendered in helm.template(spec.name, values_of(spec))
    ]
    text = yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, width=120)
    return f"# Rendered from specs/{spec_file.name} by `python scripts/golden.py`: do not edit.\n{text}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a file is out of date")
    arguments = parser.parse_args()
    wanted = {DIRECTORY / "golden" / path.name: render(path) for path in sorted((DIRECTORY / "specs").glob("*.yaml"))}
    there = {path: path.read_text(encoding="utf-8") for path in (DIRECTORY / "golden").glob("*.yaml")}
    differing = sorted(path for path in wanted.keys() | there.keys() if wanted.get(path) != there.get(path))
    if arguments.check:
        for path in differing:
            print(f"{path} is out of date: run `python scripts/golden.py`.", file=sys.stderr)
        return 1 if differing else 0
    for path in differing:
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
