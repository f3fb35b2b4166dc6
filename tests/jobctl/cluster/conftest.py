"""Objects as the API server sends them, made by hand."""

from collections.abc import Callable
from typing import Any

import pytest

Dict = dict[str, Any]


def make_job(name: str = "x", revision: int = 1, **more: Any) -> Dict:
    return {
        "metadata": {
            "name": f"{name}-r{revision}",
            "uid": more.get("uid", f"{name}-{revision}"),
            "creationTimestamp": more.get("created", f"2026-01-01T00:00:{revision:02d}Z"),
            "labels": {
                "app.kubernetes.io/name": "jobctl",
                "app.kubernetes.io/instance": name,
                "jobctl.dev/kind": "train",
                "jobctl.dev/task": "predictor",
                "jobctl.dev/gpu": "cpu",
                "jobctl.dev/spec-hash": "abc",
            },
            **({"annotations": more["annotations"]} if "annotations" in more else {}),
            **({"deletionTimestamp": more["deleted"]} if "deleted" in more else {}),
        },
        "spec": {
            "completions": more.get("completions", 1),
            "suspend": more.get("suspend", False),
            "template": {
                "spec": {
                    "containers": [
                        {"name": "worker", "image": "worker:1", "ports": [{"name": "metrics", "containerPort": 9400}]}
                    ],
                    "volumes": [
                        {"name": "shared", "persistentVolumeClaim": {"claimName": "disk"}},
                        {"name": "config", "configMap": {"name": f"{name}-r{revision}"}},
                    ],
                }
            },
        },
        "status": more.get("status", {"active": 1}),
    }


def make_pod(index: int = 0, phase: str = "Running", *, job: str = "x-1", uid: str = "p", **more: Any) -> Dict:
    counts = {
        "batch.kubernetes.io/job-index-failure-count": str(more.get("failures", 0)),
        "batch.kubernetes.io/job-index-ignored-failure-count": str(more.get("ignored", 0)),
    }
    state: Dict = {}
    if "finished" in more:
        ended = {"exitCode": more.get("exit_code", 75), "finishedAt": more["finished"]}
        state = {"terminated": {**ended, "message": more.get("message", "")}}
    elif "waiting" in more:
        state = {"waiting": more["waiting"]}
    return {
        "metadata": {
            "name": f"pod-{uid}",
            "uid": uid,
            "creationTimestamp": more.get("created", "2026-01-01T00:00:00Z"),
            "labels": {
                "batch.kubernetes.io/job-completion-index": str(index),
                "batch.kubernetes.io/controller-uid": job,
            },
            "annotations": counts,
            **({"deletionTimestamp": more["deleted"]} if "deleted" in more else {}),
        },
        "spec": {"containers": [{"name": "worker", "image": "worker:1"}], "volumes": more.get("volumes", [])},
        "status": {
            "phase": phase,
            "conditions": more.get("conditions", []),
            "containerStatuses": [{"name": "worker", "state": state}] if state else [],
        },
    }


@pytest.fixture
def job() -> Callable[..., Dict]:
    return make_job


@pytest.fixture
def pod() -> Callable[..., Dict]:
    return make_pod
