"""Which backend a command talks to: never silently this machine where a cluster is configured."""

from pathlib import Path

import pytest

from jobctl.backend import choose, current_context, home_directory
from jobctl.cli.backends import open_backend
from jobctl.errors import UsageError

NOWHERE = Path("/nonexistent/token")


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def kubeconfig(path: Path, context: str | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("apiVersion: v1\nkind: Config\n" + (f"current-context: {context}\n" if context is not None else ""))
    return path


def test_a_flag_wins_over_the_environment_and_both_over_what_is_configured(tmp_path):
    environ = {"KUBECONFIG": str(kubeconfig(tmp_path / "config", "prod")), "JOBCTL_BACKEND": "local"}
    assert choose(None, environ, NOWHERE) == "local"
    assert choose("kubernetes", environ, NOWHERE) == "kubernetes"


def test_without_any_cluster_jobs_run_on_this_machine():
    assert choose(None, {}, NOWHERE) == "local"


def test_a_current_context_means_the_cluster(tmp_path):
    kubeconfig(tmp_path / ".kube" / "config", "prod")
    assert choose(None, {}, NOWHERE) == "kubernetes"


def test_a_kubeconfig_without_a_current_context_means_none(tmp_path):
    kubeconfig(tmp_path / ".kube" / "config", None)
    assert choose(None, {}, NOWHERE) == "local"
    kubeconfig(tmp_path / ".kube" / "config", '""')
    assert choose(None, {}, NOWHERE) == "local"


def test_the_first_context_in_the_list_counts_and_missing_files_do_not_matter(tmp_path):
    files = [tmp_path / "missing", kubeconfig(tmp_path / "a", None), kubeconfig(tmp_path / "b", "staging")]
    environ = {"KUBECONFIG": ":".join(map(str, files))}
    assert current_context(environ) == "staging"


def test_kubeconfig_hides_the_file_in_the_home_directory(tmp_path):
    kubeconfig(tmp_path / ".kube" / "config", "prod")
    assert choose(None, {"KUBECONFIG": str(tmp_path / "missing")}, NOWHERE) == "local"


def test_a_pod_s_service_account_means_the_cluster(tmp_path):
    token = tmp_path / "token"
    token.touch()
    assert choose(None, {}, token) == "kubernetes"


def test_a_broken_kubeconfig_is_an_error_and_no_silent_run_here(tmp_path):
    broken = tmp_path / "broken"
    broken.write_text("current-context: [")
    with pytest.raises(UsageError, match="is not YAML"):
        choose(None, {"KUBECONFIG": str(broken)}, NOWHERE)
    with pytest.raises(UsageError, match="can't be read"):
        choose(None, {"KUBECONFIG": str(tmp_path)}, NOWHERE)


def test_an_unknown_backend_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"no backend 'locl' .did you mean 'local'"):
        choose("locl", {}, NOWHERE)


def test_the_local_backend_lives_in_jobctl_home(tmp_path):
    assert home_directory({"JOBCTL_HOME": str(tmp_path / "here")}) == tmp_path / "here"
    assert home_directory({}) == tmp_path / ".jobctl"
    assert open_backend("local", {"JOBCTL_HOME": str(tmp_path)}).volume("shared") == tmp_path / "volumes" / "shared"


def test_the_kubernetes_backend_without_any_cluster_says_what_to_do(monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(UsageError, match="--backend local"):
        open_backend("kubernetes", {})
