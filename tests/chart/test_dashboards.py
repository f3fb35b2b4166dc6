"""The dashboards ask for nothing that the workers don't export."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import promql_parser
import pytest

from workers.metrics import METRICS, PREFIX

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "charts" / "jobctl-platform" / "dashboards").glob("*.json"))
SUFFIXES = {"gauge": ("",), "counter": ("",), "histogram": ("_bucket", "_sum", "_count")}
EVERY_WORKERS = {"run", "kind", "task", "index", "local_rank"}
FROM_SCRAPING = {"namespace", "pod", "container", "endpoint", "instance", "job"}
VALUES = re.compile(r"label_values\((?P<selector>.+), (?P<label>\w+)\)")


def exported() -> dict[str, set[str]]:
    """Names of all series that workers export, and the labels that each has in Prometheus."""
    labels = {}
    for name, metric in METRICS.items():
        for suffix in SUFFIXES[metric.kind]:
            more = {"le"} if suffix == "_bucket" else set()
            labels[PREFIX + name + suffix] = EVERY_WORKERS | FROM_SCRAPING | set(metric.labels) | more
    return labels


def boards() -> dict[str, dict[str, Any]]:
    return {file.stem: json.loads(file.read_text()) for file in FILES}


def targets() -> list[tuple[str, str, str]]:
    """(panel, expression as Prometheus gets it, legend) of every query, those of variables included."""
    found = []
    for board in boards().values():
        for panel in board["panels"]:
            found += [(panel["title"], target["expr"], target["legendFormat"]) for target in panel["targets"]]
        for variable in board["templating"]["list"]:
            if values := VALUES.fullmatch(str(variable["query"])):
                found.append((variable["name"], f"group by ({values['label']}) ({values['selector']})", ""))
    return [(name, substituted(expression), legend) for name, expression, legend in found]


def substituted(expression: str) -> str:
    replaced = expression.replace("$namespace", ".+").replace("$run", ".+").replace("$__rate_interval", "1m")
    assert "$" not in replaced, f"a variable that the dashboard doesn't define: {replaced}"
    return replaced


def nodes(expression: str) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(promql_parser.parse(expression), found.append, lambda node: None)
    return found


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    ranges = [node.vector_selector for node in nodes(expression) if isinstance(node, promql_parser.MatrixSelector)]
    return ranges + [node for node in nodes(expression) if isinstance(node, promql_parser.VectorSelector)]


QUERIES = targets()
by_query = pytest.mark.parametrize(("name", "expression", "legend"), QUERIES, ids=[name for name, _, _ in QUERIES])


def test_there_is_something_to_test():
    assert boards().keys() == {"jobs"}
    assert len(QUERIES) > 15


@by_query
def test_a_query_selects_series_that_workers_export_by_labels_that_they_have(name, expression, legend):
    known = exported()
    assert selectors(expression)
    for selector in selectors(expression):
        assert selector.name in known
        matched = {matcher.name for matcher in selector.matchers.matchers}
        assert matched <= known[selector.name]


@by_query
def test_a_query_groups_by_labels_that_its_series_have_and_shows_no_others(name, expression, legend):
    names = set(re.findall(rf"\b{PREFIX}\w+", expression))
    common = set.intersection(*(exported()[metric] for metric in names))
    grouped = [set(node.modifier.labels) for node in nodes(expression) if isinstance(node, promql_parser.AggregateExpr)]
    assert grouped
    assert set().union(*grouped) <= common
    assert set(re.findall(r"{{(\w+)}}", legend)) <= set.union(*grouped)


@by_query
def test_a_query_asks_for_the_chosen_namespaces_and_runs_only(name, expression, legend):
    chosen = {"namespace": set(), "run": {("namespace", ".+")}}.get(name, {("namespace", ".+"), ("run", ".+")})
    for selector in selectors(expression):
        assert chosen <= {(matcher.name, matcher.value) for matcher in selector.matchers.matchers}


@pytest.mark.parametrize("board", boards().values(), ids=boards())
def test_a_board_is_complete_and_its_panels_lie_side_by_side(board):
    assert board["schemaVersion"] >= 39
    assert board["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in board["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    for panel in board["panels"]:
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"$datasource"}


def test_the_table_names_every_column_that_its_queries_give():
    (table,) = (panel for panel in boards()["jobs"]["panels"] if panel["type"] == "table")
    (names,) = (step["options"]["renameByName"] for step in table["transformations"] if step["id"] == "organize")
    assert {name for name in names if name.startswith("Value")} == {f"Value #{t['refId']}" for t in table["targets"]}
    assert {override["matcher"]["options"] for override in table["fieldConfig"]["overrides"]} <= set(names.values())


def test_the_files_are_what_the_script_makes():
    checked = subprocess.run([sys.executable, "scripts/dashboards.py", "--check"], cwd=ROOT, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, b"")
