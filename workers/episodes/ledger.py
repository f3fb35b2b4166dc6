"""The ledger: which episodes exist, with seed, outcome and checksum. One file an episode, made once and never changed.

DATASET/dataset.json         what fixes the episodes' content (schema, seed, ...): made by the first writer
DATASET/ledger/000012.json   one entry; appears by an exclusive link, so that an episode is recorded exactly once
DATASET/ledger.json          all entries, and
DATASET/manifest.json        schema, counts, SHA-256 of ledger.json: made, with the same bytes, by whoever sees all
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workers import untrusted
from workers.episodes.schema import OUTCOMES, SCHEMA
from workers.errors import BadDataError
from workers.storage import create, verify, write_atomic
from workers.untrusted import CorruptError

MAX_LEDGER_BYTES = 2**29  # twice the entries of a million episodes
_PUBLISHED = re.compile(r"(?P<episode>[0-9]{6})\.[0-9]{6,9}")


@dataclass(frozen=True, order=True)
class Entry:
    """One recorded episode. `checksum`: SHA-256 over its files' names and hashes; equal arrays, equal checksum."""

    episode: int
    seed: int
    outcome: str
    steps: int
    perturbed: bool
    checksum: str


_FIELDS: dict[str, untrusted.Types] = {
    "episode": int,
    "seed": int,
    "outcome": str,
    "steps": int,
    "perturbed": bool,
    "checksum": str,
}
_MANIFEST: dict[str, untrusted.Types] = {"schema": str, "episodes": int, "ledgerSha256": str}


def entry_path(dataset: Path, episode: int) -> Path:
    return dataset / "ledger" / f"{episode:06d}.json"


def record(dataset: Path, entry: Entry) -> bool:
    """Enters an episode; False if it is recorded already (with whatever content: the first one holds).

    The entry's bytes are on disk before its name appears, and the name appears with the whole content or not at all.
    """
    final = entry_path(dataset, entry.episode)
    final.parent.mkdir(parents=True, exist_ok=True)
    return create(final, _json(asdict(entry)))


def numbers(dataset: Path) -> set[int]:
    """The episodes that are recorded, by the names of their entries."""
    found = (untrusted.whole_number(path.stem) for path in (dataset / "ledger").glob("[0-9]*.json"))
    return {number for number in found if number is not None}


def entry_of(dataset: Path, episode: int) -> Entry | None:
    """One entry; None if there is none, or one whose content is not there yet. Raises BadDataError if it is damaged."""
    path = entry_path(dataset, episode)
    try:
        if path.lstat().st_size == 0:  # on a volume without hard links: see storage.create
            return None
        entry = _entry(_parse(path), path)
    except FileNotFoundError:
        return None
    if entry.episode != episode:
        raise BadDataError(f"the ledger entry {path} is of episode {entry.episode}")
    return entry


def recorded(dataset: Path) -> list[Entry]:
    """All entries as they stand on disk now, by episode. Raises BadDataError naming an entry that can't be read."""
    entries = (entry_of(dataset, number) for number in numbers(dataset))
    return sorted(entry for entry in entries if entry is not None)


def read(dataset: Path) -> list[Entry]:
    """The entries of a dataset, sorted by episode: those of the merged ledger, otherwise those recorded so far.

    Raises BadDataError for a path that is missing, holds no episodes or holds another schema.
    """
    entries = merged(dataset) or recorded(dataset)
    if not entries:
        raise BadDataError(f"{dataset} holds no recorded episodes; run a collect job that writes it first")
    return entries


def merged(dataset: Path) -> list[Entry] | None:
    """The entries of a complete dataset, as its manifest vouches for them; None if it is not complete.

    Raises BadDataError as `read` does.
    """
    manifest, path = read_manifest(dataset), dataset / "ledger.json"
    if manifest is None or not path.is_file():
        return None
    try:
        data = untrusted.read_bytes(path, limit=MAX_LEDGER_BYTES)
        if hashlib.sha256(data).hexdigest() != manifest.get("ledgerSha256"):
            return None
        content = untrusted.parse_json(data)
    except (CorruptError, OSError, ValueError) as error:
        raise BadDataError(f"{path} can't be read: {error}") from error
    if not isinstance(content, list):
        raise BadDataError(f"{path} holds no list of episodes")
    return [_entry(entry, path) for entry in content]


def require_whole(dataset: Path, episodes: Iterable[int], beat: Callable[[], None] = lambda: None) -> None:
    """Verifies every file of these episodes of a complete dataset. Raises BadDataError naming what is damaged."""
    entries = {entry.episode: entry for entry in merged(dataset) or []}
    among = all_published(dataset)
    for episode in episodes:
        if episode not in entries:
            raise BadDataError(f"{dataset} has no complete ledger with episode {episode}")
        path_of(dataset, entries[episode], beat, among=among)


def read_manifest(dataset: Path) -> dict[str, Any] | None:
    """The merged dataset's manifest; None if its parts were never merged. Raises BadDataError as `read` does."""
    if not dataset.is_dir():
        raise BadDataError(f"the data path {dataset} does not exist; correct `data`, or run a collect job")
    for name in ("manifest.json", "dataset.json"):
        path = dataset / name
        if path.is_file():
            content = _parse(path)
            require_schema(dataset, content.get("schema"))
            if name == "manifest.json" and (wrong := untrusted.misfit(content, _MANIFEST)):
                raise BadDataError(f"{path} is damaged: {wrong}")
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
    return sorted(_directories(dataset, f"{episode:06d}.[0-9]*"), reverse=True)


def all_published(dataset: Path) -> dict[int, list[Path]]:
    """As `published` of every episode, by one look at the directory."""
    found = defaultdict(list)
    for path in sorted(_directories(dataset, "[0-9]*"), reverse=True):
        found[int(path.name[:6])].append(path)
    return dict(found)


def _directories(dataset: Path, pattern: str) -> list[Path]:
    return [path for path in (dataset / "episodes").glob(pattern) if _PUBLISHED.fullmatch(path.name)]


def path_of(
    dataset: Path,
    entry: Entry,
    beat: Callable[[], None] = lambda: None,
    *,
    hashes: bool = True,
    among: Mapping[int, list[Path]] | None = None,
) -> Path:
    """The directory with the content that the ledger names, verified by size and SHA-256 of every file.

    `beat` is called again and again; `hashes=False` compares sizes only; `among`: what `all_published` found a moment
    ago. Raises BadDataError naming the episode if it is missing, damaged or other content than what was recorded.
    """
    reasons = []
    for path in published(dataset, entry.episode) if among is None else among.get(entry.episode, []):
        try:
            if checksum_of(verify(path, beat=beat, hashes=hashes)) == entry.checksum:
                return path
            reasons.append(f"{path.name} holds other content than the ledger records")
        except (CorruptError, OSError) as error:
            reasons.append(str(error))
    reason = "; ".join(reasons) or "its directory is missing"
    raise BadDataError(
        f"episode {entry.episode} of {dataset} is damaged: {reason}; "
        f"to record it again: jobctl retry {dataset.name}, or whichever job collected it"
    )


def _entry(content: Any, path: Path) -> Entry:
    if wrong := untrusted.misfit(content, _FIELDS):
        raise BadDataError(f"the ledger entry {path} is damaged: {wrong}")
    if content["outcome"] not in OUTCOMES or min(content["episode"], content["steps"]) < 0:
        raise BadDataError(f"the ledger entry {path} is damaged: it describes no episode")
    return Entry(**{name: content[name] for name in _FIELDS})


def _parse(path: Path) -> dict[str, Any]:
    try:
        return untrusted.read_record(path, {})
    except (OSError, CorruptError) as error:
        raise BadDataError(f"{path} can't be read: {error}") from error


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
