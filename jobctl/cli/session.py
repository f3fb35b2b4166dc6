"""What one invocation knows: which backend it talks to, opened when it is first needed and named on stderr."""

from __future__ import annotations

import sys
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobctl.cli import output
from jobctl.errors import UsageError
from jobctl.untrusted import text

if TYPE_CHECKING:
    from jobctl.backend import Backend, Record
    from jobctl.cluster.backend import KubernetesBackend
    from jobctl.cluster.refusals import Place
    from jobctl.progress import Progress
    from jobctl.status import JobView
    from jobctl.volume import Result, Run


class Session:
    """Lives in click's context as `ctx.obj`; commands take it with `@click.pass_obj`."""

    def __init__(self) -> None:
        self.backend_flag: str | None = None
        self.context_flag: str | None = None
        self.namespace_flag: str | None = None
        self.debug = False
        self.allowed_env: tuple[str, ...] = ()  # --allow-env

    @cached_property
    def backend_name(self) -> str:
        import os

        from jobctl.backend import choose

        named = self.context_flag or self.namespace_flag
        chosen = choose(self.backend_flag or ("kubernetes" if self.context_flag else None), os.environ)
        if named and chosen == "local":
            raise UsageError("--context and --namespace are the kubernetes backend's: leave them out, or say which.")
        return chosen

    @cached_property
    def backend(self) -> Backend:
        """Raises UnreachableError where there is none of that name, UsageError where the name is unknown."""
        from jobctl.cli.backends import open_backend

        backend = open_backend(
            self.backend_name, context=self.context_flag, namespace=self.namespace_flag, note=self.note
        )
        self.say_where()
        return backend

    @property
    def is_open(self) -> bool:
        return "backend" in self.__dict__

    def close(self) -> None:
        """Have the backend remove what it needed only for this command."""
        if self.is_open:
            self.backend.close()

    @property
    def cluster(self) -> KubernetesBackend:
        """The backend, where only a cluster will do."""
        from jobctl.cluster.backend import KubernetesBackend

        if not isinstance(self.backend, KubernetesBackend):
            raise UsageError("This needs a cluster: name one with --context, or `--backend kubernetes`.")
        return self.backend

    def say_where(self) -> None:
        """Name the backend on stderr; opening it does so by itself. With --debug, Helm too."""
        self.note(f"backend: {self.where}")
        if self.debug:
            from jobctl import helm

            program = helm.find_helm()
            self.note(f"helm: {program} {helm.check_version(program)}")

    @property
    def is_local(self) -> bool:
        return self.backend_name == "local"

    @property
    def where(self) -> str:
        """The backend and its place, for people."""
        places = [value for key, value in self.where_document.items() if key != "name"]
        return f"{self.backend_name} ({', '.join(places)})" if places else self.backend_name

    @property
    def where_document(self) -> dict[str, Any]:
        """The field `backend` of every JSON and YAML answer."""
        import os

        from jobctl.backend import home_directory

        if self.is_local:
            return {"name": "local", "home": str(home_directory(os.environ))}
        where = self.place
        return {"name": "kubernetes"} | ({"context": where.context, "namespace": where.namespace} if where else {})

    @cached_property
    def place(self) -> Place | None:
        """The cluster and namespace of the kubernetes backend; None where no cluster is configured at all.

        Raises UsageError for a context that isn't there.
        """
        import os

        from jobctl.backend import SERVICE_ACCOUNT, current_context
        from jobctl.cluster.place import find_place

        configured = self.context_flag or current_context(os.environ) or SERVICE_ACCOUNT.exists()
        return find_place(self.context_flag, self.namespace_flag) if configured else None

    def view(self, name: str) -> tuple[Record, JobView]:
        """A job now. Raises NotFoundError."""
        from datetime import UTC, datetime

        from jobctl.status import view

        record = self.backend.record(name)
        return record, view(record, datetime.now(UTC))

    def run(self, record: Record) -> Run:
        """The job's directory on its volume."""
        from jobctl.backend import claim_of
        from jobctl.volume import Run

        return Run(self.backend.reader(claim_of(record.values), record), record.name)

    def progress(self, record: Record, job: JobView) -> Progress | None:
        """How far this revision is while it is active; afterwards the whole run, without a guess at its end."""
        from dataclasses import replace

        from jobctl.progress import progress_of
        from jobctl.status import ACTIVE

        # In a training group, index 0 counts for all; elsewhere each index has a share of its own.
        shares = 1 if job.kind == "train" else job.completions
        if job.state in ACTIVE:
            return progress_of(self.backend.metrics(record), shares)
        last = self.run(record).progress(shares) if self.is_local else progress_of(self.backend.metrics(record), shares)
        return replace(last, eta_seconds=None) if last else None

    def say(self, sentence: str) -> None:
        """One line for people; answers for machines go to stdout through output.emit."""
        output.say(sentence)

    def note(self, sentence: str) -> None:
        """One line beside the answer, on stderr."""
        output.say(sentence, err=True)
        sys.stderr.flush()


def own_result(run: Run, record: Record, job: JobView) -> Result | None:
    """The published end of this very job, if there is one."""
    uid = text(record.job, "metadata", "uid")
    return next((result for result in run.results() if result.belongs_to(job.spec_hash, uid)), None)
