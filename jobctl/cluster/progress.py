"""How far a job is, without its volume: running pods serve metrics, ended ones left a summary in their last message.

The API server's proxy reaches a pod from wherever the API server is reached. What can't be had is left out: progress is
worth a line, never an error. What a pod answers, and how slowly, is its own choice: both are bounded.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jobctl.cluster.api import Api, read_some
from jobctl.cluster.refusals import ForbiddenError
from jobctl.errors import JobctlError
from jobctl.objects import by_index, metrics_port_of, parse_time, phase_of, read_summary, termination_of
from jobctl.untrusted import at

Object = dict[str, Any]
Line = dict[str, Any]

SCRAPE_SECONDS = 2.0  # for one pod's answer to begin, and again for all of it
ALL_SECONDS = 6.0  # for those of one job: no other is asked after that
SCRAPE_BYTES = 1024 * 1024  # a worker has about 10 KiB to say
AT_ONCE = 8
MOST_INDEXES = 64
# What a rate can be told from without a second look: gauges in units of `step` a second, by preference.
RATES = ("episodes_per_second",)
_SAMPLE = re.compile(r"jobctl_(?P<name>[a-z0-9_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S{1,40})", re.ASCII)


def metrics_lines(api: Api, job: Object, pods: list[Object], now_unix_seconds: float) -> list[list[Line]]:
    """For each index the lines that its newest pod with something to say has: as in metrics/INDEX.FENCE.jsonl.

    Raises ForbiddenError where the pods' metrics may not be read.
    """
    port = metrics_port_of(job)
    newest = [_telling(of) for _, of in sorted(by_index(pods).items())[:MOST_INDEXES]]
    until = time.monotonic() + ALL_SECONDS
    with ThreadPoolExecutor(AT_ONCE) as workers:
        found = list(workers.map(lambda pod: _lines(api, pod, port, now_unix_seconds, until), newest))
    return [lines for lines in found if lines]


def _telling(pods: list[Object]) -> Object:
    """The newest pod that runs or has ended; a pending one has nothing to say."""
    said = [pod for pod in pods if phase_of(pod) != "Pending"]
    return (said or pods)[-1]


def _lines(api: Api, pod: Object, port: int | None, now: float, until: float) -> list[Line]:
    """`until`: the monotonic instant after which no pod is asked any more."""
    terminated = termination_of(pod)
    if terminated is not None:
        return lines_of_summary(terminated)
    if phase_of(pod) != "Running" or port is None or time.monotonic() > until:
        return []
    path = api.path("pods", f"{pod['metadata']['name']}:{port}", "proxy/metrics")
    try:
        with api.open("GET", path, "get pods/proxy", read_seconds=SCRAPE_SECONDS, patience_seconds=0) as response:
            said = read_some(response, SCRAPE_BYTES, SCRAPE_SECONDS)
        return lines_of_metrics(said.decode("utf-8", "replace"), now)
    except ForbiddenError:
        if _may_ask(api):
            return []  # the pod's own answer
        raise
    except JobctlError:
        return []  # the pod does not listen yet, or a network policy keeps the API server away from it


def _may_ask(api: Api) -> bool:
    """Whether we may get pods/proxy: a pod can answer with 403, too, in the API server's words."""
    wanted = {"namespace": api.place.namespace, "verb": "get", "resource": "pods", "subresource": "proxy"}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": wanted},
    }
    return at(api.create("selfsubjectaccessreviews", review), "status", "allowed") is True


def lines_of_summary(terminated: Mapping[str, Any]) -> list[Line]:
    """The figures of a termination message, as of the container's end."""
    summary = read_summary(terminated.get("message"))
    ended = parse_time(terminated.get("finishedAt"))
    if "step" not in summary or ended is None:
        return []
    return [{**{key: value for key, value in summary.items() if key != "code"}, "time": ended.timestamp()}]


def lines_of_metrics(text: str, now: float) -> list[Line]:
    """The gauges of a scrape as a metrics line; before it a line that gives the rate, where the scrape tells one."""
    samples = dict(_samples(text))
    if "step" not in samples:
        return []
    histograms = ("_bucket", "_sum", "_count", "_created", "_total")
    line = {name: value for name, value in samples.items() if not name.endswith(histograms)} | {"time": now}
    count, seconds = samples.get("step_seconds_count", 0.0), samples.get("step_seconds_sum", 0.0)
    if count > 0 and seconds > 0:
        return [{"time": now - seconds, "step": samples["step"] - count}, line]
    rate = next((samples[name] for name in RATES if samples.get(name, 0.0) > 0), None)
    return [{"time": now - 1 / rate, "step": samples["step"] - 1}, line] if rate else [line]


def _samples(text: str) -> Iterator[tuple[str, float]]:
    """Every sample of jobctl_ metrics without labels of its own (those of the run don't count)."""
    for line in text.splitlines():
        if (match := _SAMPLE.fullmatch(line)) and "le=" not in (match["labels"] or ""):
            try:
                value = float(match["value"])
            except ValueError:
                continue
            if math.isfinite(value):
                yield match["name"], value
