"""What the API server's answers mean for a user: one sentence, and the exit status. Pure.

Helm passes the same texts on, so release.py asks here, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from jobctl.errors import JobctlError, NotFoundError, RefusedError, UnreachableError

ROLE = "docs/rbac.md has the Role that jobctl needs"


class ForbiddenError(RefusedError):
    """A right is missing: callers that can do without it catch this one."""


class GoneError(JobctlError):
    """The API server no longer knows that resourceVersion or page: list again."""


class ConflictError(RefusedError):
    """The object exists already, or changed meanwhile."""


@dataclass(frozen=True)
class Place:
    """Where a request went: what errors name."""

    server: str
    context: str
    namespace: str


_RIGHT = re.compile(
    r'(?:User "(?P<user>[^"]*)" )?cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)?'
)
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), (?P<numbers>requested: .*)", re.DOTALL)
_UNQUOTED = re.compile(r"failed quota: (?P<quota>[^:]+): (?P<said>must specify .*)", re.DOTALL)
_POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<said>.*)', re.DOTALL)
_NAMESPACE = re.compile(r'namespaces "(?P<name>[^"]+)" not found')
_TERMINATING = re.compile(r"namespace (?P<name>\S+) because it is being terminated")
_OWNED = re.compile(r'(?P<kind>\w+) "(?P<name>[^"]+)" in namespace "[^"]*" exists and cannot be imported')


def _missing_right(match: re.Match[str], place: Place) -> JobctlError:
    resource = match["resource"] + (f".{match['group']}" if match["group"] else "")
    scope = f"in namespace {match['namespace']}" if match["namespace"] else "in the whole cluster"
    who = f" ({match['user']})" if match["user"] else ""
    return ForbiddenError(f"You{who} may not {match['verb']} {resource} {scope}: {ROLE}.")


def _quota(match: re.Match[str], place: Place) -> JobctlError:
    return RefusedError(
        f"The quota {match['quota']} of namespace {place.namespace} has no room for it "
        f"({_flat(match['numbers'])}): wait for a job to end, ask for less, or have it raised."
    )


def _unquoted(match: re.Match[str], place: Place) -> JobctlError:
    return RefusedError(
        f"The quota {match['quota']} of namespace {place.namespace} wants every pod to say its size "
        f"({_flat(match['said'])}): give it under resources."
    )


def _pod_security(match: re.Match[str], place: Place) -> JobctlError:
    return RefusedError(
        f"Namespace {place.namespace} has Pod Security level {match['level']}, which refuses these pods: "
        f"{_flat(match['said'])}."
    )


def _no_namespace(match: re.Match[str], place: Place) -> JobctlError:
    return NotFoundError(
        f"There is no namespace {match['name']} in {place.context}: name another with -n, or "
        f"`kubectl create namespace {match['name']}`."
    )


def _terminating(match: re.Match[str], place: Place) -> JobctlError:
    return RefusedError(f"Namespace {match['name']} is being deleted: name another with -n.")


def _owned(match: re.Match[str], place: Place) -> JobctlError:
    return RefusedError(
        f"{match['kind']} {match['name']} in namespace {place.namespace} belongs to something else than this job: "
        "choose another --name."
    )


# The first that is found in the text counts.
PATTERNS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], Place], JobctlError]], ...] = (
    (_RIGHT, _missing_right),
    (_QUOTA, _quota),
    (_UNQUOTED, _unquoted),
    (_POD_SECURITY, _pod_security),
    (_NAMESPACE, _no_namespace),
    (_TERMINATING, _terminating),
    (_OWNED, _owned),
)


def refusal_in(text: str, place: Place) -> JobctlError | None:
    """The refusal that a text of the API server or of Helm tells of, or None where it tells of none."""
    for pattern, explain in PATTERNS:
        if match := pattern.search(text):
            return explain(match, place)
    return None


def error_of(status: int, body: str, place: Place, attempted: str) -> JobctlError:
    """The error of an answer with this HTTP status; `attempted` says what was asked, as `read pods`."""
    said = message_of(body)
    if status == 401:
        return RefusedError(
            f"{place.server} does not accept your credentials (401): they are wrong or have expired. Log in again, "
            f"or choose another --context than {place.context}."
        )
    if status == 410:
        return GoneError(f"{place.server} has forgotten that state of things (410): list again.")
    known = refusal_in(said, place)
    if known is not None:
        return known
    if status == 404:
        return NotFoundError(f"Could not {attempted}: {_flat(said)}.")
    if status == 409:
        return ConflictError(f"Could not {attempted}: {_flat(said)}.")
    if status == 403:
        return ForbiddenError(f"Could not {attempted}: {_flat(said)}.")
    if status in (429, 500, 502, 503, 504):
        return UnreachableError(
            f"{place.server} could not {attempted} ({status}: {_flat(said)}): try again in a while."
        )
    return RefusedError(f"Could not {attempted} ({status}): {_flat(said)}.")


def unreachable(place: Place, why: str) -> UnreachableError:
    """The server did not answer at all."""
    return UnreachableError(
        f"The Kubernetes API server {place.server} (context {place.context}) does not answer: {why}. Is the cluster "
        "up and the address right? `--backend local` runs on this machine."
    )


def message_of(body: str) -> str:
    """The `message` of a Status object, else the text itself."""
    try:
        status = json.loads(body)
    except ValueError:
        return body
    return str(status.get("message") or body) if isinstance(status, dict) else body


def _flat(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
