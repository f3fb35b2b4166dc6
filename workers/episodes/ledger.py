"""The ledger: which episodes exist, with seed, outcome and checksum. One file an episode, made once and never changed.

DATASET/dataset.json         what fixes the episodes' content (schema, seed, ...): made by the first writer
DATASET/ledger/000012.json   one entry; appears by an exclusive link, so that an episode is recorded exactly once
DATASET/ledger.json          all entries, and
DATASET/manifest.json        schema, counts, SHA-256 of ledger.json: made, with the same bytes, by whoever sees all
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from workers.episodes.schema import OUTCOMES, SCHEMA
from workers.errors import BadDataError
from workers.storage import CorruptError, create, verify, write_atomic


@dataclass(frozen=True, order=True)
class Entry:
    """One recorded episode. `checksum`: SHA-256 over its files' names and hashes; equal arrays, equal checksum."""

    episode: int
    seed: int
    outcome: str
    steps: int
    perturbed: bool
    checksum: str


def entry_path(dataset: Path, episode: int) -> Path:
    return dataset / "ledger" / f"{episode:06d}.json"


def record(dataset: Path, entry: Entry) -> bool:
    """Enters an episode; False if it is recorded already (with whatever content: the first one holds).

    The entry's bytes are on disk before its name appears, and the name appears with the whole content or not at all.
    """
    final = entry_path(dataset, entry.episode)
    final.parent.mkdir(parents=True, exist_ok=True)
    return create(final, _json(asdict(entry)))


def recorded(dataset: Path) -> list[Entry]:
    """All entries as they stand on disk now, by episode. Raises BadDataError naming an entry that can't be read."""
    return sorted(_entry(path) for path in (dataset / "ledger").glob("[0-9]*.json"))


def read(dataset: Path) -> list[Entry]:
    """The entries of a dataset, sorted by episode: those of the merged ledger, otherwise those recorded so far.

    Raises BadDataError for a path that is missing, holds no episodes or holds another schema.
    """
    manifest = read_manifest(dataset)
    merged = dataset / "ledger.json"
    if manifest is not None and merged.is_file():
        data = merged.read_bytes()
        if hashlib.sha256(data).hexdigest() == manifest.get("ledgerSha256"):
            return [Entry(**entry) for entry in json.loads(data)]
    entries = recorded(dataset)
    if not entries:
        raise BadDataError(f"{dataset} holds no recorded episodes; run a collect job that writes it first")
    return entries


def read_manifest(dataset: Path) -> dict[str, Any] | None:
    """The merged dataset's manifest; None if its parts were never merged. Raises BadDataError as `read` does."""
    if not dataset.is_dir():
        raise BadDataError(f"the data path {dataset} does not exist; correct `data`, or run a collect job")
    for name in ("manifest.json", "dataset.json"):
        path = dataset / name
        if path.is_file():
            content = _parse(path)
            require_schema(dataset, content.get("schema"))
            return content if name == "manifest.json" else None
    return None


def require_schema(where: Path, found: object) -> None:
    """Raises BadDataError naming both schemas unless `found` is ours."""
    if found != SCHEMA:
        raise BadDataError(f"{where} holds the schema {found!r}, but this worker reads {SCHEMA!r}")


def begin(dataset: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Fixes what decides the episodes' content, once; returns what holds: another writer's if that was first."""
    path = dataset / "dataset.json"
    dataset.mkdir(parents=True, exist_ok=True)
    create(path, _json({"schema": SCHEMA, **identity}))
    content = _parse(path)
    require_schema(dataset, content.pop("schema", None))
    return content


def merge(dataset: Path, expected: int) -> list[Entry] | None:
    """Publishes ledger.json and manifest.json once all expected episodes are recorded; None while some are missing.

    Idempotent: any index that sees all parts may do it, at the same time too, for all write the same bytes.
    """
    entries = [entry for entry in recorded(dataset) if entry.episode < expected]
    if len(entries) < expected:
        return None
    ledger = _json([asdict(entry) for entry in entries])
    write_atomic(dataset / "ledger.json", ledger)
    manifest = {"schema": SCHEMA, **counts(entries), "ledgerSha256": hashlib.sha256(ledger).hexdigest()}
    write_atomic(dataset / "manifest.json", _json(manifest))
    return entries


def counts(entries: Iterable[Entry]) -> dict[str, Any]:
    """What a manifest counts: episodes, steps, perturbed ones, and episodes by outcome (each outcome, zeros too)."""
    entries = list(entries)
    outcomes = Counter(entry.outcome for entry in entries)
    return {
        "episodes": len(entries),
        "steps": sum(entry.steps for entry in entries),
        "perturbed": sum(entry.perturbed for entry in entries),
        "outcomes": {outcome: outcomes[outcome] for outcome in OUTCOMES},
    }


def checksum_of(manifest: dict[str, Any]) -> str:
    """An episode's checksum, from the manifest that `storage.publish` wrote: over its content's names and hashes."""
    hashes = {name: file["sha256"] for name, file in manifest["files"].items()}
    return hashlib.sha256("".join(f"{name} {hashes[name]}\n" for name in sorted(hashes)).encode()).hexdigest()


def published(dataset: Path, episode: int) -> list[Path]:
    """Directories that hold this episode, newest fence first; more than one after a writer was superseded."""
    return sorted((dataset / "episodes").glob(f"{episode:06d}.{'[0-9]' * 6}"), reverse=True)


def path_of(dataset: Path, entry: Entry) -> Path:
    """The directory with the content that the ledger names, verified by size and SHA-256 of every file.

    Raises BadDataError naming the episode if it is missing, damaged or other content than what was recorded.
    """
    reasons = []
    for path in published(dataset, entry.episode):
        try:
            if checksum_of(verify(path)) == entry.checksum:
                return path
            reasons.append(f"{path.name} holds other content than the ledger records")
        except (CorruptError, OSError) as error:
            reasons.append(str(error))
    reason = "; ".join(reasons) or "its directory is missing"
    raise BadDataError(f"episode {entry.episode} of {dataset} is damaged: {reason}")


def _entry(path: Path) -> Entry:
    content = _parse(path)
    try:
        return Entry(**{field.name: content[field.name] for field in fields(Entry)})
    except KeyError as error:
        raise BadDataError(f"the ledger entry {path} lacks {error}") from error


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadDataError(f"{path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise BadDataError(f"{path} holds no JSON object")
    return content


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
