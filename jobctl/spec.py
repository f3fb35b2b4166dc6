"""What a user asks for: one job, validated against the chart's own schema before anything is started."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jobctl import documents, texts
from jobctl.chart import profile_names
from jobctl.errors import UsageError, nearest
from jobctl.schema import problems as schema_problems
from jobctl.schema import read_defaults, read_schema, setting_names, shown, takes_text, with_numbers

Kind = Literal["collect", "train", "eval"]
KINDS: tuple[Kind, ...] = ("collect", "train", "eval")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
NAME_LENGTH = 50  # what the names of pods, which add revision and index, leave of a DNS label's 63 characters


@dataclass(frozen=True)
class JobSpec:
    """One job. `asked` holds the keys as given; `full` those and the chart's defaults, numbers as numbers."""

    asked: Mapping[str, Any]
    full: Mapping[str, Any]
    source: str

    @property
    def name(self) -> str:
        return self.full["name"]

    @property
    def kind(self) -> Kind:
        return self.full["kind"]

    @property
    def task(self) -> str:
        return self.full["task"]

    @property
    def gpu(self) -> str:
        return self.full["gpu"]

    @property
    def replicas(self) -> int:
        return self.full["replicas"]

    @property
    def gpus_per_replica(self) -> int:
        return self.full["gpusPerReplica"]

    @property
    def preset(self) -> str:
        return self.full["preset"]

    @property
    def data(self) -> str:
        """The episodes' path on the volume."""
        return self.full["data"] or f"datasets/{self.name}"

    @property
    def from_run(self) -> str | None:
        return self.full["from"]

    @property
    def claim(self) -> str:
        return self.full["volume"]["claim"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that were asked for: the task's own defaults are the worker's."""
        return self.full["settings"]


@dataclass(frozen=True)
class Asked:
    """The keys of one job as they were asked for, all layers merged; not checked yet."""

    keys: Mapping[str, Any]
    source: str
    team: Sequence[tuple[Path, Sequence[str]]] = ()  # the team's files and the keys that each sets

    @property
    def name(self) -> object:
        """The job's name: its kind where none was given. Anything, as nothing has looked at it yet."""
        return self.keys.get("kind") if self.keys.get("name") is None else self.keys["name"]

    @property
    def has_name(self) -> bool:
        """Whether the name is one that a job can bear."""
        return isinstance(self.name, str) and bool(NAME.fullmatch(self.name)) and len(self.name) <= NAME_LENGTH


def read_specs(file: Path | None, **layers: Any) -> list[JobSpec]:
    """The jobs that `ask` finds, checked. Raises UsageError."""
    return [validate(asked.keys, asked.source) for asked in ask(file, **layers)]


def ask(
    file: Path | None,
    *,
    kind: str | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> list[Asked]:
    """The jobs of a spec file (None: one job of flags alone), in order.

    Later wins: the team's defaults, the file's documents, `flags` (keys of the spec), `assignments` (`--set`), which
    both hold for every document. Without a name a job is called after its kind. Raises UsageError.
    """
    found = documents.read(file, takes_text) if file else [{}]
    files = documents.team_files(file.parent if file else Path(), environ, takes_text)
    team = documents.merge_all(defaults for _, defaults in files)
    said = [(path, documents.paths(defaults)) for path, defaults in files]
    over = documents.merge_all([flags or {}, *map(_assignment, assignments)])
    jobs = []
    for number, document in enumerate(found, 1):
        source = _source(file, number if len(found) > 1 else None)
        if kind and document.get("kind", kind) != kind:
            raise UsageError(f"{source} is a {document['kind']} job, not {kind}: leave {kind} out of the command.")
        jobs.append(Asked(documents.merge_all([team, document, {"kind": kind} if kind else {}, over]), source, said))
    _refuse_same_names(jobs)
    return jobs


def _assignment(text: str) -> dict[str, Any]:
    """One `--set`; `steps=400` is short for `settings.steps=400` where only a setting has that name."""
    (key, *_) = documents.assigned_key(text)
    is_bare = key in setting_names() and key not in read_schema()["properties"]
    return documents.assignment(f"settings.{text}" if is_bare else text, takes_text)


def _source(file: Path | None, number: int | None) -> str:
    if not file:
        return "the command line"
    return f"{file}, document {number}" if number else str(file)


def _refuse_same_names(jobs: Iterable[Asked]) -> None:
    seen: dict[str, Asked] = {}
    for job in jobs:
        other = seen.setdefault(str(job.name), job)
        if other is not job:
            raise UsageError(
                f"{other.source} and {job.source} both have the name {job.name!r}: each job needs its own."
            )


def validate(asked: Mapping[str, Any], source: str = "the spec", *, by_schema: bool = True) -> JobSpec:
    """The job that these keys ask for. Raises UsageError with one sentence, a line each, for all that is wrong.

    `by_schema=False` leaves out what Helm finds by itself, holding the values against the same schema.
    """
    if unencodable := list(texts.unencodable(asked)):  # nothing else can be made of such a text
        raise _refusal(unencodable, source)
    kind_problems = list(_kind_problems(asked))
    if kind_problems:  # all that follows depends on the kind
        raise _refusal(kind_problems, source)
    name = Asked(asked, source).name
    defaults = read_defaults()
    values = with_numbers({"task": defaults["task"]} | {key: asked[key] for key in asked if key != "name"})
    full = documents.merge(defaults, values) | {"name": name}
    problems = [*_name_problems(name, full), *_unknown_keys(asked), *_other_problems(full)]
    # jobctl writes its own numbers into `planned` before Helm sees it
    if by_schema or problems or not isinstance(values.get("planned", {}), Mapping):
        problems = [*schema_problems(values), *problems]
    if problems:
        raise _refusal(problems, source)
    return JobSpec(asked=dict(asked) | {"name": name}, full=full, source=source)


def _refusal(problems: Sequence[str], source: str) -> UsageError:
    unique = list(dict.fromkeys(problems))
    return UsageError("\n".join(f"{source}: {problem}" for problem in unique))


def _kind_problems(asked: Mapping[str, Any]) -> Iterable[str]:
    kind = asked.get("kind")
    if kind is None:
        yield "kind is missing: collect, train or eval."
    elif kind not in KINDS:
        yield f"kind is {shown(kind)}{nearest(str(kind), KINDS)}."


def _name_problems(name: object, full: Mapping[str, Any]) -> Iterable[str]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"name is {shown(name)}, which is no DNS label: use lower-case letters, digits and '-' between them."
    elif len(name) > NAME_LENGTH:
        yield f"name {name!r} has {len(name)} characters: at most {NAME_LENGTH} fit into the names of its pods."
    elif full["kind"] == "train" and isinstance(full["replicas"], int) and full["replicas"] > 1 and name[0].isdigit():
        yield f"name {name!r} begins with a digit: replicas that train together need one that begins with a letter."


def _unknown_keys(asked: Mapping[str, Any]) -> Iterable[str]:
    if "global" in asked:  # Helm hands it to every chart of a parent, so the schema lets it pass
        yield "a spec has no key 'global'."


def _other_problems(full: Mapping[str, Any]) -> Iterable[str]:
    """What the schema cannot say; the chart says the same to those who use Helm alone."""
    if full["gpu"] not in profile_names():
        yield f"there is no profile {shown(full['gpu'])}{nearest(str(full['gpu']), profile_names())}."
    if full["kind"] == "eval" and not full["from"]:
        yield "from is missing: eval judges the weights of a run, so name one (from: RUN)."
    if full["kind"] == "collect" and full["from"]:
        yield "from has no meaning for collect: it starts from no run's weights; leave it out."
    if full["kind"] == "collect" and full["data"] and not str(full["data"]).startswith("datasets/"):
        yield f"data is {shown(full['data'])}, but collect writes below datasets/ only: name datasets/NAME."
    if full["kind"] == "train" and full["gates"]:
        yield "gates have no meaning for train: state them in collect (data) and eval (quality)."
    if isinstance(full["env"], Mapping) and isinstance(full["secretEnv"], Mapping):
        for name in sorted(full["env"].keys() & full["secretEnv"].keys()):
            yield f"{name} stands in both env and secretEnv: keep one."
    yield from texts.problems(full)
