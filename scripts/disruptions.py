"""Runs every disruption on the cluster and puts into docs/disruptions.md how long each took to be overcome.

Arguments go to pytest: `scripts/disruptions.py -k late` runs some, and leaves the figures of the others as they are.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import marked

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "disruptions.md"
BEGIN, END = "<!-- figures: made by `make test-disruptions` -->", "<!-- end of figures -->"
REPORT = "JOBCTL_DISRUPTIONS_REPORT"  # tests/cluster/support/disruptions.py writes it
COLUMNS = {
    "ending": "the old pod saves and ends",
    "back_off": "controller back-off",
    "scheduling": "scheduling",
    "container_start": "container start",
    "supervisor_and_lease": "supervisor, lease",
    "python_and_restore": "Python start, restore, first step",
}


def run_tests(report: Path) -> None:
    tests = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "cluster").glob("test_disruptions*.py"))
    command = [sys.executable, "-m", "pytest", "-m", "", *tests, *sys.argv[1:]]
    if code := subprocess.run(command, cwd=ROOT, env=os.environ | {REPORT: str(report)}).returncode:
        sys.exit(f"the tests ended with {code}: {DOCS.relative_to(ROOT)} is left as it was")


def machine(load: float) -> str:
    """Where and when, as far as it says what the figures are worth."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    answer = subprocess.run(("kubectl", "version", "--output=json"), capture_output=True, text=True, check=True).stdout
    kubernetes = json.loads(answer)["serverVersion"]["gitVersion"]
    return (
        f"{time.strftime('%Y-%m-%d')}: three kind nodes on one machine with {os.cpu_count()} CPU cores and "
        f"{memory:.0f} GiB\n(load average {load:.1f} before the tests began), Kubernetes {kubernetes}."
    )


def row(recovery: dict[str, Any]) -> tuple[str, str]:
    """What happened, and the line of the table that tells of it."""
    parts = [recovery[name] for name in COLUMNS]
    cells = [recovery["what"], *(f"{part:.0f}" for part in parts), f"**{sum(parts):.0f}**"]
    return recovery["what"], f"| {' | '.join(cells)} |"


def rows_of(table: str) -> dict[str, str]:
    """The lines of a table as `write` made it."""
    lines = [line for line in table.splitlines() if line.startswith("| ")][1:]
    return {line.split("|")[1].strip(): line for line in lines}


def write(recoveries: list[dict[str, Any]], load: float) -> None:
    rows = rows_of(marked.part(DOCS, BEGIN, END)) | dict(map(row, recoveries))
    head = f"| what | {' | '.join(COLUMNS.values())} | **to the next step** |\n|---|" + "--:|" * (len(COLUMNS) + 1)
    table = "\n".join([head, *rows.values()])
    marked.replace(DOCS, BEGIN, END, f"{machine(load)}\n\n{table}")


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "recoveries.jsonl"
        report.touch()
        run_tests(report)
        write([json.loads(line) for line in report.read_text().splitlines()], load)


if __name__ == "__main__":
    main()
