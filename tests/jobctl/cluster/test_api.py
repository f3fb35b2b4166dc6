"""Requests that never hang, and what an API server's moods mean. A small server of our own has these moods at will."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobctl.cluster import api as api_module
from jobctl.cluster.api import Api, connect, retry_after_seconds
from jobctl.cluster.changes import Changes
from jobctl.cluster.place import find_place
from jobctl.cluster.refusals import ForbiddenError, GoneError
from jobctl.errors import RefusedError, UnreachableError, UsageError

Answer = tuple[int, dict[str, str], Any]


class Server:
    """Answers requests in turn from `answers`; the last one again and again. Remembers what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                server.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))
                status, headers, body = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.asked]


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch) -> Callable[..., None]:
    def write(url: str, namespace: str | None = None, token: str = "secret") -> None:
        context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "prod",
            "contexts": [{"name": "prod", "context": context}],
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        (tmp_path / "config").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))

    return write


@pytest.fixture
def api(server, kubeconfig) -> Api:
    kubeconfig(server.url)
    return connect(find_place(None, "team"))


def status(code: int, message: str = "because") -> dict[str, Any]:
    return {"kind": "Status", "code": code, "message": message}


def page(names: list[str], token: str = "", version: str = "7") -> dict[str, Any]:
    return {
        "metadata": {"resourceVersion": version, **({"continue": token} if token else {})},
        "items": [{"metadata": {"name": name}} for name in names],
    }


def test_the_namespace_is_the_flag_s_else_the_context_s_else_default(kubeconfig):
    kubeconfig("https://10.0.0.1", namespace="team")
    assert find_place(None, "mine").namespace == "mine"
    assert find_place(None, None).namespace == "team"
    kubeconfig("https://10.0.0.1")
    assert (find_place("prod", None).namespace, find_place("prod", None).server) == ("default", "https://10.0.0.1")


def test_an_unknown_context_is_a_usage_error_that_names_the_nearest(kubeconfig):
    kubeconfig("https://10.0.0.1")
    with pytest.raises(UsageError, match=r"no context 'prd' \(did you mean 'prod'\?\)"):
        find_place("prd", None)


@pytest.mark.parametrize("odd", ["contexts: 5", "contexts: [5]", "contexts: [{name: a}]", "contexts: {a: b}"])
def test_a_kubeconfig_of_another_shape_has_no_context(odd, tmp_path, monkeypatch):
    (tmp_path / "config").write_text(f"current-context: a\n{odd}\n")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(UsageError, match=r"no context 'a' \(it has none\)"):
        find_place(None, None)


LOGINS = {
    "a program that is not there": ({"command": "no-such-login"}, "no-such-login"),
    "a program that fails": (
        {"command": "sh", "args": ["-c", "echo the session has expired >&2; exit 1"]}, "the session has expired",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGINS)
def test_a_login_without_credentials_is_refused_before_anything_is_asked_as_nobody(case, server, kubeconfig, tmp_path):
    program, said = LOGINS[case]
    kubeconfig(server.url)
    config = json.loads((tmp_path / "config").read_text())
    login = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", **program}
    config["users"][0]["user"] = {"exec": login}
    (tmp_path / "config").write_text(json.dumps(config))
    with pytest.raises(RefusedError, match=rf"the context prod logs in gave no credentials: .*{said}"):
        connect(find_place(None, None)).version()
    assert server.asked == []


def test_a_request_carries_the_kubeconfig_s_credentials(server, api):
    server.answers = [(200, {}, {"metadata": {"name": "x"}})]
    assert api.get("jobs", "x") == {"metadata": {"name": "x"}}
    method, path, headers, _ = server.asked[0]
    assert (method, path) == ("GET", "/apis/batch/v1/namespaces/team/jobs/x")
    assert headers["authorization"] == "Bearer secret"


def test_a_patch_merges_and_a_null_removes(server, api):
    server.answers = [(200, {}, {})]
    api.patch("jobs", "x", {"metadata": {"annotations": {"a": None}}})
    _, _, headers, body = server.asked[0]
    assert headers["Content-Type"] == "application/merge-patch+json"
    assert json.loads(body) == {"metadata": {"annotations": {"a": None}}}


def test_a_list_goes_over_all_pages(server, api):
    server.answers = [(200, {}, page(["a"], token="more")), (200, {}, page(["b"], version="9"))]
    found, version = api.find_with_version("pods", labelSelector="l")
    assert ([one["metadata"]["name"] for one in found], version) == (["a", "b"], "9")
    assert "continue=more" in server.paths()[1]


def test_a_list_whose_next_page_is_forgotten_is_asked_for_at_once(server, api):
    server.answers = [(200, {}, page(["a"], token="more")), (410, {}, status(410)), (200, {}, page(["a", "b"]))]
    assert len(api.find("pods")) == 2
    assert "limit" not in server.paths()[2]


def test_a_busy_server_is_asked_again_when_it_says(server, api):
    server.answers = [(429, {"Retry-After": "1"}, status(429)), (200, {}, page(["a"]))]
    start = time.monotonic()
    assert len(api.find("pods")) == 1
    assert time.monotonic() - start >= 1


def test_a_server_that_stays_busy_is_given_up_within_ten_seconds(server, api, monkeypatch):
    monkeypatch.setattr(api_module, "PATIENCE_SECONDS", 1.5)
    server.answers = [(429, {"Retry-After": "1"}, status(429, "too many requests"))]
    with pytest.raises(UnreachableError, match=r"429: too many requests"):
        api.find("pods")
    assert len(server.asked) == 2
    server.answers = [(429, {"Retry-After": "3600"}, status(429))]
    with pytest.raises(UnreachableError):
        api.find("pods")
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("code", "after", "asked_again"),
    [(429, "2", True), (429, None, True), (503, "2", True), (503, None, False), (500, "2", False), (404, "2", False)],
)
def test_only_who_says_so_is_asked_again(code, after, asked_again):
    headers = {} if after is None else {"Retry-After": after}
    assert (retry_after_seconds(code, headers) is not None) is asked_again


def test_a_server_that_accepts_and_says_nothing_is_given_up(kubeconfig, monkeypatch):
    monkeypatch.setattr(api_module, "READ_SECONDS", 0.3)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        kubeconfig(url)
        with pytest.raises(UnreachableError, match=rf"{url} \(context prod\) does not answer: no answer in time"):
            connect(find_place(None, None)).version()


def test_a_port_where_nobody_listens_is_named(kubeconfig):
    kubeconfig("https://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:9 .*: Connection refused"):
        connect(find_place(None, None)).version()


def test_a_host_that_nobody_knows_is_named(kubeconfig):
    kubeconfig("https://kube.invalid")
    with pytest.raises(UnreachableError, match=r"https://kube\.invalid .* does not answer: its name is not known here"):
        connect(find_place(None, None)).version()


def test_a_connection_that_is_cut_is_said_in_plain_words(server, api):
    server.answers = [(200, {"Content-Length": "1000"}, b"{")]
    with pytest.raises(UnreachableError, match=r"does not answer: the connection was cut\."):
        api.version()


def test_expired_credentials_are_a_refusal(server, api):
    server.answers = [(401, {}, status(401, "Unauthorized"))]
    with pytest.raises(RefusedError, match="wrong or have expired"):
        api.find("jobs")


def event(version: str, kind: str = "MODIFIED") -> bytes:
    return json.dumps({"type": kind, "object": {"metadata": {"resourceVersion": version}}}).encode() + b"\n"


def test_a_watch_gives_whole_events_and_forgets_a_torn_one(server, api):
    server.answers = [(200, {}, event("8") + event("9") + b'{"type": "MODI')]
    found = [one["object"]["metadata"]["resourceVersion"] for one in api.watch("jobs", 5, resourceVersion="7")]
    assert found == ["8", "9"]
    assert "watch=true" in server.paths()[0] and "resourceVersion=7" in server.paths()[0]


def test_a_watch_of_a_forgotten_version_asks_to_list_again(server, api):
    gone = json.dumps({"type": "ERROR", "object": status(410, "too old")}).encode() + b"\n"
    server.answers = [(200, {}, gone)]
    with pytest.raises(GoneError):
        list(api.watch("jobs", 5))


def changes_of(server: Server, api: Api, monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> Changes:
    """Watches jobs alone, so that answers come in turn."""
    monkeypatch.setattr("jobctl.cluster.changes.WATCHED", ("jobs",))
    monkeypatch.setattr("jobctl.cluster.changes.AGAIN_SECONDS", 0.01)
    server.answers = list(answers)
    return Changes(api, "l")


def watched(server: Server, count: int) -> list[str]:
    deadline = time.monotonic() + 10
    while len(server.asked) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.paths()[:count]


def test_a_cut_watch_goes_on_after_the_last_event_it_had(server, api, monkeypatch):
    cut = {"Content-Length": "100000"}
    changes_of(server, api, monkeypatch, (200, {}, page([], version="7")), (200, cut, event("8")), (200, {}, b""))
    asked = watched(server, 3)
    assert ["limit" in asked[0], "resourceVersion=7" in asked[1], "resourceVersion=8" in asked[2]] == [True] * 3


def test_a_watch_that_is_too_old_lists_again(server, api, monkeypatch):
    listed = (200, {}, page([], version="7"))
    changes_of(
        server, api, monkeypatch, listed, (410, {}, status(410)), (200, {}, page([], version="9")), (200, {}, b"")
    )
    asked = watched(server, 4)
    assert ["limit" in asked[2], "resourceVersion=9" in asked[3]] == [True] * 2


def test_waiting_without_the_right_to_watch_names_it(server, api, monkeypatch):
    forbidden = (
        'jobs.batch is forbidden: User "j" cannot watch resource "jobs" in API group "batch" in the namespace "n"'
    )
    changes = changes_of(server, api, monkeypatch, (200, {}, page([])), (403, {}, status(403, forbidden)))
    with pytest.raises(ForbiddenError, match=r"may not watch jobs\.batch in namespace n"):
        for _ in range(3):
            changes.wait(5)
