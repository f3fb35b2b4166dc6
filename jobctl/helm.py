"""The only caller of Helm. Values go in as YAML on standard input, objects come back as parsed documents."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jobctl.chart import chart_directory
from jobctl.errors import JobctlError, UsageError

TIMEOUT_SECONDS = 60
OLDEST_KUBERNETES = "1.34.0"  # that the chart takes
OLDEST_HELM = (3, 18)  # that holds values against a schema of draft 2020-12; the chart says so, too
# Helm lives for a tenth of a second: without the garbage collector it takes a quarter less time.
GO_SETTINGS = {"GOGC": "off", "GOMEMLIMIT": "512MiB"}


def find_helm(environ: Mapping[str, str] | None = None) -> Path:
    """The Helm program: $JOBCTL_HELM, then PATH, then the one beside this Python (set-up puts it there).

    Raises JobctlError saying where it was looked for.
    """
    environ = os.environ if environ is None else environ
    named = environ.get("JOBCTL_HELM")
    if named:
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise JobctlError(f"JOBCTL_HELM names {named!r}, which is no program: correct it, or unset it.")
    beside = Path(sys.executable).parent / "helm"
    found = shutil.which("helm", path=environ.get("PATH")) or shutil.which(str(beside))
    if not found:
        raise JobctlError(
            f"Helm is neither on PATH nor at {beside}: run `make setup`, or set JOBCTL_HELM to the program."
        )
    return Path(found)


def version(program: Path) -> str:
    """What a Helm says of itself, such as v4.3.1. Raises JobctlError where it says nothing of that kind."""
    try:
        done = subprocess.run(
            [str(program), "version", "--template", "{{.Version}}"],
            capture_output=True, encoding="utf-8", errors="replace", timeout=TIMEOUT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobctlError(
            f"Helm ({program}) can't be started: {error}. Set JOBCTL_HELM to a working program."
        ) from error
    said = done.stdout.strip()
    if not _VERSION.match(said):
        raise JobctlError(f"{program} is no Helm: it does not say its version. Set JOBCTL_HELM to Helm 3.18 or newer.")
    return said


_VERSION = re.compile(r"v(?P<major>\d+)\.(?P<minor>\d+)")


def check_version(program: Path) -> str:
    """The version. Raises JobctlError for a Helm that is older than the charts need."""
    said = version(program)
    found = _VERSION.match(said)
    assert found is not None
    if (int(found["major"]), int(found["minor"])) < OLDEST_HELM:
        raise JobctlError(
            f"Helm ({program}) is {said}, and jobctl needs {'.'.join(map(str, OLDEST_HELM))} or newer: "
            "install a newer one, or set JOBCTL_HELM to it."
        )
    return said


def to_yaml(values: Mapping[str, Any]) -> str:
    r"""The values for Helm's YAML parser, in ASCII: JSON, with \U0001F680 where JSON would have two halves.

    So no character is one that YAML folds, takes for the end of a line, or refuses. Raises ValueError for no number.
    """
    text = json.dumps(values, allow_nan=False, ensure_ascii=False)
    return _NOT_PLAIN.sub(lambda found: f"\\U{ord(found[0]):08X}", text)


_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")  # stands in strings alone: the rest of JSON, as it is written here, is ASCII


def template(
    name: str,
    values: Mapping[str, Any],
    *,
    chart: Path | None = None,
    namespace: str | None = None,
    kube_version: str = OLDEST_KUBERNETES,
) -> list[dict[str, Any]]:
    """The objects that `helm install NAME` with these values would make, in the order in which Helm makes them.

    Raises UsageError where the chart refuses the values, JobctlError where Helm itself can't be run.
    """
    with Rendering(name, chart=chart, namespace=namespace, kube_version=kube_version) as rendering:
        return rendering.of(values)


class Rendering:
    """`helm template` as a process that can be started before its values are known.

    Helm takes three times as long to start as to render: meanwhile the values can be checked.
    """

    def __init__(
        self,
        name: str,
        *,
        chart: Path | None = None,
        namespace: str | None = None,
        kube_version: str = OLDEST_KUBERNETES,
    ) -> None:
        # Helm's own idea of a version depends on how it was built: some say 1.20.
        self._arguments = ["template", name, str(chart or chart_directory()), "--values", "-"]
        self._arguments += ["--kube-version", kube_version, *(["--namespace", namespace] if namespace else [])]
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start Helm, which then waits for its values. Raises JobctlError where it can't be run."""
        self._process = _start(self._arguments)

    def of(self, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The objects, as `template` gives them. Raises what it raises; to be called once."""
        import yaml

        process, self._process = self._process or _start(self._arguments), None
        output = _finish(process, self._arguments, to_yaml(values), TIMEOUT_SECONDS)
        return [document for document in yaml.load_all(output, Loader=yaml.CSafeLoader) if document]

    def __enter__(self) -> Rendering:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


class HelmError(JobctlError):
    """Helm failed for another reason than the values.

    `said` is its own message, on one line; `log` all that it wrote, as it gives reasons in its log, too.
    """

    def __init__(self, said: str, log: str = "") -> None:
        super().__init__(_sentence(f"Helm failed: {said}"))
        self.said, self.log = said, log or said


def run(
    arguments: list[str],
    stdin: str = "",
    timeout_seconds: float = TIMEOUT_SECONDS,
    meanwhile: Callable[[], object] = lambda: None,
) -> str:
    """Helm's standard output. Raises UsageError where the values are at fault, HelmError for what else Helm says.

    `meanwhile` is called while Helm comes up; where it raises, Helm is stopped before it has had its input.
    """
    return _finish(_start(arguments), arguments, stdin, timeout_seconds, meanwhile)


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [str(find_helm()), *arguments]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            encoding="utf-8",  # Helm's own, whatever the user's is
            errors="backslashreplace",
            env=GO_SETTINGS | os.environ,
        )
    except OSError as error:
        raise JobctlError(
            f"Helm ({command[0]}) can't be started: {error}. Set JOBCTL_HELM to a working program."
        ) from error


def _finish(
    process: subprocess.Popen[str],
    arguments: list[str],
    stdin: str,
    timeout_seconds: float,
    meanwhile: Callable[[], object] = lambda: None,
) -> str:
    with process:
        try:
            meanwhile()
            stdout, stderr = process.communicate(stdin, timeout_seconds)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise HelmError(f"no answer to `helm {arguments[0]}` for {timeout_seconds:g} s: try again") from error
        except BaseException:  # Ctrl-C, or `meanwhile`: nothing of it stays behind
            process.kill()
            raise
    if process.returncode != 0:
        refused = error_of(stderr)
        if isinstance(refused, HelmError):  # what an old Helm says is about anything but its age
            check_version(Path(str(process.args[0])) if isinstance(process.args, list) else find_helm())
        raise refused
    if UNRECORDED in stderr:  # it says so in its log alone, and ends with 0
        raise HelmError("the release was made, but could not be recorded", stderr)
    return stdout


UNRECORDED = "failed to record the release"
# What Helm says where the values are at fault; the group is the part that helps.
FAILED_TEMPLATE = re.compile(r"execution error at \([^)]*\): (?P<said>.*)", re.DOTALL)
SCHEMA = re.compile(r"^ *- at '(?P<path>[^']*)': (?P<said>(?!'allOf' failed|validation failed).*)$", re.MULTILINE)
NOISE = ("level=", "WARNING", "walk.go", "Use --debug flag")
KUBE_VERSION = re.compile(
    r"chart requires kubeVersion: (?P<wanted>\S+) which is incompatible with Kubernetes (?P<found>\S+)"
)


def error_of(stderr: str) -> JobctlError:
    """Helm's complaint without its noise: template paths, wrapped prefixes, log lines."""
    said = "\n".join(line for line in stderr.splitlines() if not line.startswith(NOISE))
    if match := FAILED_TEMPLATE.search(said):
        return UsageError(_sentence(match["said"]))
    if match := KUBE_VERSION.search(said):
        return UsageError(f"Kubernetes is {match['found']}, and the chart needs {match['wanted']}.")
    complaints = [
        f"{match['path'].strip('/').replace('/', '.') or 'the values'}: {match['said']}"
        for match in SCHEMA.finditer(said)
    ]
    if complaints:
        return UsageError(_sentence("; ".join(complaints)))
    return HelmError(" ".join(said.strip().removeprefix("Error: ").split()), stderr)


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line if line.endswith((".", ")")) else line + "."
