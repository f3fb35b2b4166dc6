"""Which cluster and namespace: as kubectl finds them, without loading the Kubernetes client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jobctl.backend import SERVICE_ACCOUNT, current_context, kubeconfig_files
from jobctl.cluster.refusals import Place
from jobctl.errors import UsageError, nearest

IN_CLUSTER = "in-cluster"


def find_place(context: str | None, namespace: str | None, environ: Mapping[str, str] = os.environ) -> Place:
    """The kubeconfig's context (--context, else the current one), else the pod's service account.

    Raises UsageError for a context that isn't there, or a kubeconfig that can't be read.
    """
    asked = context or current_context(environ)
    if asked is None and SERVICE_ACCOUNT.exists():
        own = SERVICE_ACCOUNT.with_name("namespace")
        server = f"https://{environ.get('KUBERNETES_SERVICE_HOST', 'kubernetes')}"
        default = own.read_text(encoding="utf-8").strip() if own.exists() else "default"
        return Place(server, IN_CLUSTER, namespace or default)
    if asked is None:
        raise UsageError(
            "No cluster is configured: the kubeconfig has no current context. Name one with --context, or say "
            "--backend local to run on this machine."
        )
    contexts, clusters = _merged(environ)
    if asked not in contexts:
        known = nearest(asked, contexts) if contexts else " (it has none)"
        raise UsageError(
            f"The kubeconfig has no context {asked!r}{known}. `--backend local` runs on this machine without one."
        )
    found = contexts[asked]
    server = str((clusters.get(str(found.get("cluster"))) or {}).get("server") or "of no known address")
    return Place(server, asked, namespace or str(found.get("namespace") or "default"))


def _merged(environ: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Contexts and clusters of all files of $KUBECONFIG; the first that names one counts."""
    import yaml

    contexts: dict[str, dict[str, Any]] = {}
    clusters: dict[str, dict[str, Any]] = {}
    for path in kubeconfig_files(environ):
        try:
            config = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"The kubeconfig {path} can't be read: repair it, or say --backend local.") from error
        for key, found in (("context", contexts), ("cluster", clusters)):
            for name, entry in _entries(config, key):
                found.setdefault(name, entry)
    return contexts, clusters


def _entries(config: Any, key: str) -> list[tuple[str, dict[str, Any]]]:
    """(name, content) of a kubeconfig's contexts or clusters; what has another shape is left out."""
    listed = config.get(f"{key}s") if isinstance(config, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return [(str(entry.get("name")), entry[key]) for entry in entries if isinstance(entry.get(key), dict)]
