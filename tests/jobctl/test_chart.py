"""Where the charts are, and whose they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobctl import chart
from jobctl.errors import JobctlError
from jobctl.version import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of jobctl's, without charts."""
    directory = tmp_path / "site-packages" / "jobctl"
    directory.mkdir(parents=True)
    monkeypatch.setattr(chart, "PACKAGE", directory)
    chart.chart_directory.cache_clear()
    yield directory
    chart.chart_directory.cache_clear()


def put_chart(parent, version=__version__):
    directory = parent / "jobctl"
    directory.mkdir(parents=True)
    (directory / "Chart.yaml").write_text(f"name: jobctl\nversion: {version}\n")
    return directory


@pytest.mark.parametrize("name", ["jobctl", "jobctl-platform"])
def test_a_checkout_uses_its_own_charts_of_its_own_version(name):
    assert chart.chart_directory(name) == ROOT / "charts" / name
    meta = yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text())
    assert (meta["version"], meta["appVersion"]) == (__version__, __version__)


def test_a_wheel_uses_the_chart_inside_it(package):
    put_chart(package.parent / "charts")
    inside = put_chart(package / "_charts")
    assert chart.chart_directory() == inside


def test_a_chart_of_another_version_is_refused(package):
    put_chart(package / "_charts", version="9.9.9")
    with pytest.raises(JobctlError, match=rf"version 9\.9\.9 but jobctl is {__version__}: install jobctl again"):
        chart.chart_directory()


def test_a_missing_chart_is_named_with_the_places_looked_at(package):
    with pytest.raises(JobctlError, match=r"'jobctl' is neither in .*_charts/jobctl nor in .*charts/jobctl"):
        chart.chart_directory()
