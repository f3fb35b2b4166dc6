"""What all tests share: a last word on what could not run here, and why."""

import os

import pytest
from hypothesis import settings

# Speed is a benchmark, never a timed test. CI tries the same examples each time, people new ones.
settings.register_profile("jobctl", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("jobctl")


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
