"""What the platform chart makes for Prometheus and Grafana."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from jobctl import helm

CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl-platform"
OPERATOR = ("--api-versions", "monitoring.coreos.com/v1/PodMonitor")
RELABELINGS = [
    {"action": "keep", "sourceLabels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics(-[0-9]+)?"},
    {"targetLabel": "endpoint", "replacement": "metrics"},
]


@pytest.fixture
def monitors(run_helm):
    """The PodMonitors of `helm template` with these values; OPERATOR tells Helm of a cluster that knows them."""

    def made(*assignments: str, cluster: tuple[str, ...] = ()) -> list[dict]:
        sets = [part for assignment in assignments for part in ("--set", assignment)]
        done = run_helm("template", "platform", str(CHART), "--namespace", "jobs", *sets, *cluster)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document["kind"] == "PodMonitor"]

    return made


def dashboards(**values) -> list[dict]:
    objects = helm.template("platform", {"dashboards": values}, chart=CHART, namespace="jobs")
    return [document for document in objects if document["kind"] == "ConfigMap"]


def test_a_cluster_with_the_operator_scrapes_the_metrics_port_of_all_jobs(monitors):
    (monitor,) = monitors(cluster=OPERATOR)
    assert monitor == {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {
            "name": "platform",
            "namespace": "jobs",
            "labels": {
                "app.kubernetes.io/name": "jobctl-platform",
                "app.kubernetes.io/instance": "platform",
                "app.kubernetes.io/component": "monitoring",
                "app.kubernetes.io/version": yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"],
                "app.kubernetes.io/managed-by": "Helm",
            },
        },
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": "jobctl"}},
            "podMetricsEndpoints": [{"relabelings": RELABELINGS}],
        },
    }


@pytest.mark.parametrize("processes", [1, 8])
def test_what_the_monitor_keeps_is_the_metrics_port_of_each_process_and_no_other(monitors, render, pick, processes):
    (monitor,) = monitors(cluster=OPERATOR)
    values = {"kind": "train", "gpu": "a100", "replicas": 2, "gpusPerReplica": processes}
    template = pick(render(values), "Job")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (keep, _) = endpoint["relabelings"]
    ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
    kept = [port for name, port in ports.items() if re.fullmatch(keep["regex"], name)]
    assert kept == list(range(9400, 9400 + processes))  # as workers/metrics.py serves: the port plus the local rank
    assert ports.keys() > {"metrics", "store"} if processes > 1 else ports.keys() == {"metrics", "store"}


def test_a_cluster_without_the_operator_gets_no_monitor(monitors):
    assert monitors() == []


@pytest.mark.parametrize(("enabled", "count"), [("true", 1), ("false", 0)])
def test_values_decide_whatever_the_cluster_knows(monitors, enabled, count):
    for cluster in ((), OPERATOR):
        assert len(monitors(f"monitoring.enabled={enabled}", cluster=cluster)) == count


def test_labels_and_interval_are_the_users_but_the_charts_own_labels_stay(monitors):
    own = "monitoring.labels.app\\.kubernetes\\.io/name=mine"
    (monitor,) = monitors("monitoring.labels.release=stack", own, "monitoring.interval=30s", cluster=OPERATOR)
    labels = monitor["metadata"]["labels"]
    assert (labels["release"], labels["app.kubernetes.io/name"]) == ("stack", "jobctl-platform")
    assert monitor["spec"]["podMetricsEndpoints"] == [{"relabelings": RELABELINGS, "interval": "30s"}]


def test_the_dashboard_is_in_a_config_map_that_grafanas_sidecar_finds(schema_errors):
    (document,) = dashboards()
    assert document["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert document["data"].keys() == {"jobctl-jobs.json"}
    assert json.loads(document["data"]["jobctl-jobs.json"]) == json.loads((CHART / "dashboards/jobs.json").read_text())
    assert schema_errors(document) == []


def test_the_sidecars_label_and_folder_are_values():
    (document,) = dashboards(labels={"mine": "yes"}, annotations={"grafana_folder": "Jobs"})
    assert document["metadata"]["labels"]["mine"] == "yes"
    assert document["metadata"]["annotations"] == {"grafana_folder": "Jobs"}


def test_no_dashboard_where_values_say_so():
    assert dashboards(enabled=False) == []


@pytest.mark.parametrize(
    "values",
    [
        {"monitoring": {"enabled": "maybe"}},
        {"monitoring": {"interval": "often"}},
        {"monitoring": {"labels": {"release": "a b"}}},
        {"monitoring": {"label": {}}},
        {"dashboards": {"enabled": "auto"}},
        {"dashboards": {"labels": {"grafana_dashboard": 1}}},
    ],
)
def test_bad_values_are_refused_by_name(values):
    (part,) = values
    (key,) = values[part]
    with pytest.raises(helm.UsageError, match=key):
        helm.template("platform", values, chart=CHART)
