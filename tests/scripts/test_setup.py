"""The Helm that set-up uses: its own is the one that was put there, a user's is new enough."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def setup(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "scripts" / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "HAS_WHEEL", True)
    monkeypatch.setattr(module, "HELM_SHA256", hashlib.sha256(b"the pinned one").hexdigest())
    monkeypatch.setattr(module, "fetch_helm", lambda target, python: target.write_bytes(b"the pinned one"))
    monkeypatch.setenv("PATH", f"{tmp_path / '.venv' / 'bin'}:{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.delenv("JOBCTL_HELM", raising=False)
    return module


def put_helm(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("left", [None, b"the pinned one", b"another one"])
def test_its_own_is_taken_anew_unless_it_is_what_was_put_there(setup, left):
    target = setup.VENV / "bin" / "helm"
    if left is not None:
        target.write_bytes(left)
        target.chmod(0o755)
    setup.install_helm()
    assert target.read_bytes() == b"the pinned one"


def test_a_users_helm_is_used_where_it_is_new_enough_and_said(setup, tmp_path, capsys):
    put_helm(tmp_path / "path" / "helm", "v3.18.2")
    setup.install_helm()
    assert f"{tmp_path / 'path' / 'helm'}, Helm v3.18.2" in capsys.readouterr().out
    assert not (setup.VENV / "bin" / "helm").exists()


@pytest.mark.parametrize("version", ["v3.17.9", "v2.16.0", "hello"])
def test_one_that_is_too_old_is_refused_with_what_to_do(setup, tmp_path, monkeypatch, version):
    monkeypatch.setenv("JOBCTL_HELM", str(put_helm(tmp_path / "mine", version)))
    with pytest.raises(setup.SetupError, match=r"install Helm 3\.18 or newer, or set JOBCTL_HELM"):
        setup.install_helm()
