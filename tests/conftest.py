"""What all tests share: the pace of their loops, and a last word on what could not run here, and why."""

import importlib
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from waiting import PACE, patience

HERE = Path(__file__).parent

# Speed is a benchmark, never a timed test. CI tries the same examples each time, people new ones.
settings.register_profile("jobctl", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("jobctl")

if (
    PACE != 1
):  # the loops of this process and of those that it starts; pods get theirs from tests/cluster/support/runs.py
    needed = [str(HERE / "support" / "faults"), str(HERE / "workers" / "episodes")]
    sys.path[:0] = needed
    os.environ["PYTHONPATH"] = os.pathsep.join([*needed, *filter(None, [os.environ.get("PYTHONPATH")])])
    importlib.import_module("loop_pace").adopt(PACE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests may take longer where loops do."""
    for item in items if PACE > 1 else []:
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else float(config.getoption("timeout"))
        item.add_marker(pytest.mark.timeout(patience(seconds)), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = sorted({str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped if report.longrepr})
    others = [item for item in terminalreporter.stats.get("deselected", []) if item.get_closest_marker("disruptions")]
    if others:
        reasons.append(f"{len(others)} disruptions that take long or need the nodes alone (`make test-disruptions`)")
    terminalreporter.write_line("")
    terminalreporter.write_line(
        "did not run here: " + "; ".join(reasons) if reasons else "did not run here: nothing, every test ran"
    )
