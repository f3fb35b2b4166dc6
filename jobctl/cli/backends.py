"""Opens the backend that a command talks to. Here, because the backends themselves lie above jobctl/backend.py."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from jobctl.backend import Backend, home_directory


def open_backend(
    name: str,
    environ: Mapping[str, str] = os.environ,
    context: str | None = None,
    namespace: str | None = None,
    note: Callable[[str], None] = print,
) -> Backend:
    """The backend of that name, imported only now; `note` is told what people should know beside an answer.

    Raises UsageError where the kubeconfig can't be used.
    """
    if name == "local":
        from jobctl.local.backend import LocalBackend

        return LocalBackend(home_directory(environ))
    from jobctl.cluster.backend import KubernetesBackend

    return KubernetesBackend(context, namespace, note)
