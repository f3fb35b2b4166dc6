"""What the API server's answers mean for a user: one sentence, and the exit status. Pure.

Helm passes the same texts on, so release.py asks here, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from jobctl.errors import JobctlError, NotFoundError, RefusedError, UnreachableError, UsageError
from jobctl.untrusted import object_or_none, text

ROLE = "docs/rbac.md has the Role that jobctl needs"


class ForbiddenError(RefusedError):
    """A right is missing: callers that can do without it catch this one."""


class GoneError(JobctlError):
    """The API server no longer knows that resourceVersion or page: list again."""


class ConflictError(RefusedError):
    """The object exists already, or changed meanwhile."""


class AwayError(UnreachableError):
    """The API server itself did not answer, or not so that it could be understood."""


@dataclass(frozen=True)
class Place:
    """Where a request went: what errors name."""

    server: str
    context: str
    namespace: str


ANONYMOUS = "system:anonymous"
TRY = "-try"  # ends the names of what is only tried out (release.py): nobody has chosen them

_RIGHT = re.compile(
    r'(?:User "(?P<user>[^"]*)" )?cannot (?P<verb>[a-z]+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)?'
)
_QUOTA = re.compile(r"exceeded quota: (?P<quota>[^,]+), (?P<numbers>requested: .*)", re.DOTALL)
_UNQUOTED = re.compile(r"failed quota: (?P<quota>[^:]+): (?P<said>must specify .*)", re.DOTALL)
_POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<said>.*)', re.DOTALL)
_NAMESPACE = re.compile(r'namespaces "(?P<name>[^"]+)" not found')
_TERMINATING = re.compile(r"namespace (?P<name>\S+) because it is being terminated")
# What stands before a quoted name is bounded: else a long word without one would take its length squared.
_OWNED = re.compile(r'(?P<kind>\b\w{1,63}) "(?P<name>[^"]+)" in namespace "[^"]*" exists and cannot be imported')
_CREDENTIALS = re.compile(r"the server has asked for the client to provide credentials")
_LOGIN = re.compile(r"getting credentials: (?P<said>.*?)(?:\s+It looks like you are|$)", re.DOTALL)
_KUBECONFIG = re.compile(r"cluster unreachable: (?P<said>invalid configuration: .*|tls: failed to find .*)", re.DOTALL)
_FORBIDDEN = re.compile(r'(?P<kind>\b[\w./-]{1,253}) "(?P<name>[^"]+)" is forbidden: (?P<said>.*)', re.DOTALL)


def _credentials(match: re.Match[str], place: Place) -> JobctlError:
    return wrong_credentials(place)


def _login(match: re.Match[str], place: Place) -> JobctlError:
    return login_failed(place, match["said"])


def _kubeconfig(match: re.Match[str], place: Place) -> JobctlError:
    return unusable_kubeconfig(match["said"])


def _missing_right(match: re.Match[str], place: Place) -> JobctlError:
    if match["user"] == ANONYMOUS:
        return RefusedError(
            f"{place.server} takes you for nobody ({ANONYMOUS}): the context {place.context} has no credentials that "
            "it knows. Log in, or choose another --context."
        )
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
    (_CREDENTIALS, _credentials),
    (_LOGIN, _login),
    (_KUBECONFIG, _kubeconfig),
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
        return wrong_credentials(place)
    if status == 410:
        return GoneError(f"{place.server} has forgotten that state of things (410): list again.")
    known = refusal_in(said, place)
    if known is not None:
        return known
    if status == 404:
        return NotFoundError(f"Could not {attempted}: {_flat(said)}.")
    if status == 409:
        return ConflictError(f"Could not {attempted}: {_flat(said)}.")
    if status == 403 and (match := _FORBIDDEN.search(said)):
        name = match["name"].removesuffix(TRY)
        return RefusedError(f"Namespace {place.namespace} refuses {match['kind']} of {name}: {_flat(match['said'])}.")
    if status == 403:
        return ForbiddenError(f"Could not {attempted}: {_flat(said)}.")
    if status in (429, 500, 502, 503, 504):
        return UnreachableError(
            f"{place.server} could not {attempted} ({status}: {_flat(said)}): try again in a while."
        )
    return RefusedError(f"Could not {attempted} ({status}): {_flat(said)}.")


def wrong_credentials(place: Place) -> RefusedError:
    return RefusedError(
        f"{place.server} does not accept your credentials (401): they are wrong or have expired. Log in again, "
        f"or choose another --context than {place.context}."
    )


def login_failed(place: Place, why: str) -> RefusedError:
    """The program that the kubeconfig names for getting credentials gave none."""
    return RefusedError(
        f"The program by which the context {place.context} logs in gave no credentials: {_flat(why)}. Run it by hand, "
        "or choose another --context."
    )


def unusable_kubeconfig(why: str) -> UsageError:
    return UsageError(
        f"The kubeconfig can't be used: {_flat(why)}. `kubectl config view` shows it; --backend local needs none."
    )


def tls_failed(place: Place, why: str) -> JobctlError:
    """The secure connection could not be made; `why` as OpenSSL says it."""
    said = _flat(re.sub(r"\(_ssl\.c:\d+\)|^SSLError", "", why))
    if "PEM" in said:
        return unusable_kubeconfig(f"the certificate or key of the context {place.context} is damaged ({said})")
    if "CERTIFICATE_VERIFY_FAILED" in said:
        reason = said.rpartition("certificate verify failed: ")[2]
        return AwayError(
            f"What answers at {place.server} (context {place.context}) can't be trusted: {reason}. Is the address "
            "right, and is the kubeconfig's certificate authority the cluster's?"
        )
    return unreachable(place, f"it speaks no TLS that is understood here ({said.rpartition('] ')[2]})")


def unreachable(place: Place, why: str) -> AwayError:
    """The server did not answer at all."""
    return AwayError(
        f"The Kubernetes API server {place.server} (context {place.context}) does not answer: {why}. Is the cluster "
        "up and the address right? `--backend local` runs on this machine."
    )


def message_of(body: str) -> str:
    """The `message` of a Status object, else the text itself."""
    return text(object_or_none(body), "message") or body


def _flat(text: str) -> str:
    return " ".join(text.split()).rstrip(".")
