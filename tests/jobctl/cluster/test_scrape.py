"""What a pod answers when it is asked for its metrics, and how slowly, is its own choice. A server plays the pod."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from jobctl.cluster import progress
from jobctl.cluster.api import Api, connect
from jobctl.cluster.place import find_place
from jobctl.cluster.refusals import ForbiddenError

GOOD = b"jobctl_step 3.0\njobctl_steps 8.0\n"
FORBIDDEN = {"kind": "Status", "code": 403, "message": 'pods "x:9400" is forbidden: User "u" cannot get resource '
             '"pods/proxy" in API group "" in the namespace "team"'}  # fmt: skip


class Pods:
    """Answers for the pods by their names, and says what a user may."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.allowed, self.over = True, threading.Event()
        self.asked: list[str] = []
        pods = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pods.asked.append(self.path)
                name = self.path.rpartition("/pods/")[2].partition(":")[0]
                try:
                    pods.answers.get(name, say(GOOD))(self)
                except OSError:  # the client has heard enough
                    self.close_connection = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                say(json.dumps({"status": {"allowed": pods.allowed}}).encode(), 201)(self)

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


def say(body: bytes, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def pods(tmp_path, monkeypatch) -> Iterator[Pods]:
    made = Pods()
    config = {
        "current-context": "prod",
        "contexts": [{"name": "prod", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{made.http.server_port}"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(progress, "SCRAPE_SECONDS", 0.3)
    yield made
    made.over.set()
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def scrape(pods, job, pod) -> Callable[[], list[list[dict[str, Any]]]]:
    """Ask two pods: index 0's is `bad`, index 1's answers as it should."""

    def ask() -> list[list[dict[str, Any]]]:
        api: Api = connect(find_place(None, "team"))
        both = [pod(0, uid="bad"), pod(1, uid="good")]
        return progress.metrics_lines(api, job(completions=2), both, 1000.0)

    return ask


def endless(pods: Pods, status: int, block: bytes, pause_seconds: float) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()
        while not pods.over.wait(pause_seconds):
            handler.wfile.write(block)

    return answer


ENDLESS = {
    "floods": (200, b"jobctl_x 1\n" * 5000, 0.0),
    "floods without a line": (200, b"x" * 50_000, 0.0),
    "floods with an error": (500, b"x" * 50_000, 0.0),
    "drips": (200, b"#", 0.05),
    "drips an error": (403, b"#", 0.05),
    "is silent": (200, b"", 0.05),
}
ANSWERS = {
    "something else": say(b"\xff\x00<html>"),
    "numbers that are none": say(b"jobctl_step 1e999\njobctl_steps NaN\njobctl_loss " + b"9" * 500 + b"\n"),
    "nothing": say(b""),
    "a redirect": say(b"", 302, Location="http://127.0.0.1:1/elsewhere"),
    "a redirect to the API server": say(b"", 307, Location="/api/v1/namespaces/team/secrets"),
    "that it is away": say(b"away", 503, Retry_After="3600"),
    "that it may be asked again": say(b"away", 503, Retry_After="5"),
    "that it is packed": say(b"\x1f\x8b\x08" + b"x" * 100, Content_Encoding="gzip"),
    "the API server's refusal": say(json.dumps(FORBIDDEN).encode(), 403),
    "that you may not": say(b"you may not", 403),
    "a deep refusal": say(b"[" * 60_000, 403),
    "a long word": say(b"x" * 60_000, 500),
    "wrong credentials": say(b"", 401),
}


@pytest.mark.parametrize("how", ENDLESS)
def test_a_pod_whose_answer_has_no_end_holds_nobody_up(how, pods, scrape):
    pods.answers["pod-bad"] = endless(pods, *ENDLESS[how])
    assert scrape()[-1] == [{"step": 3.0, "steps": 8.0, "time": 1000.0}]


@pytest.mark.parametrize("what", ANSWERS)
def test_whatever_a_pod_answers_is_its_own_trouble(what, pods, scrape):
    pods.answers["pod-bad"] = ANSWERS[what]
    assert scrape() == [[{"step": 3.0, "steps": 8.0, "time": 1000.0}]]
    assert {path.rpartition("/")[2] for path in pods.asked} == {"metrics"}  # no redirect was followed


def test_a_right_that_is_missing_is_named(pods, scrape):
    pods.allowed = False
    pods.answers["pod-bad"] = ANSWERS["the API server's refusal"]
    with pytest.raises(ForbiddenError, match="pods/proxy"):
        scrape()
