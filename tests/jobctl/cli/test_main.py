"""The program as a whole: help, completion, what is imported when. How fast it is: benchmarks/cli_start.py."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from jobctl.cli import help_text
from jobctl.cli.program import COMMANDS, cli, help_module

HEAVY = {"click", "yaml", "rich", "jsonschema_rs", "torch", "numpy", "kubernetes", "workers", "subprocess"}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Byte code is cached as on any user's machine, whatever this environment says.
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environ, check=True)


def test_help_imports_next_to_nothing():
    done = python("-c", "import sys, jobctl.cli.main as m; m.main(['--help']); print(*sys.modules, file=sys.stderr)")
    assert HEAVY & set(done.stderr.split()) == set()


@pytest.mark.parametrize("verb", ["submit", "render", "list", "status"])
def test_no_command_imports_torch_or_workers(verb):
    code = f"import sys, jobctl.cli.program as p; p.cli.get_command(None, {verb!r}); print(*sys.modules)"
    assert {"torch", "workers", "numpy", "kubernetes", "rich"} & set(python("-c", code).stdout.split()) == set()


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_what_click_makes_of_it_at_any_width(flag, jobctl, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    ready = jobctl(flag)
    assert Path(help_text.__file__).read_text() == help_module()
    for columns, same in (("80", True), ("200", True), ("60", False)):
        monkeypatch.setenv("COLUMNS", columns)  # which has click print it
        said = jobctl(flag)
        assert (said.status, said.out == ready.out) == (ready.status, same) == (0, same)


def test_every_command_of_the_table_exists_and_explains_itself(jobctl):
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name and command.help
        said = jobctl(name, "--help")
        assert said.status == 0 and "--backend" in said.out
    assert all(name in jobctl("--help").out for name in COMMANDS)


def test_reading_commands_print_table_json_and_yaml():
    context = click.Context(cli)
    for name in ("list", "status", "logs", "wait", "results", "profiles"):
        command = cli.get_command(context, name)
        assert command is not None
        assert [list(p.type.choices) for p in command.params if p.name == "output"] == [["table", "json", "yaml"]]


def test_without_a_command_there_is_help_and_a_usage_error(jobctl):
    said = jobctl()
    assert (said.status, said.out) == (2, "")
    assert "Commands:" in said.err and "error:" not in said.err


def test_a_home_that_can_not_be_written_is_one_sentence(jobctl, monkeypatch):
    monkeypatch.setenv("JOBCTL_HOME", "/proc/nowhere")
    said = jobctl("submit", "train", "--data", "d")
    assert said.status == 1
    assert said.error.startswith("error: ") and "/proc/nowhere" in said.error and len(said.error.splitlines()) == 1


def test_the_version_is_jobctl_s(jobctl):
    from jobctl.version import __version__

    assert jobctl("--version").out == f"jobctl {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_shell_s_script(shell, jobctl):
    said = jobctl("completion", shell)
    assert said.status == 0
    assert f"_JOBCTL_COMPLETE={shell}_complete" in said.out


def complete(words: str, count: int) -> list[str]:
    environ = {**os.environ, "_JOBCTL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    code = "from jobctl.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_bash_completes_commands_kinds_profiles_and_jobs(jobctl):
    jobctl("submit", "train", "--name", "my-run", "--data", "d")
    assert complete("jobctl su", 1) == ["submit", "suspend"]
    assert complete("jobctl submit tr", 2) == ["train"]
    assert complete("jobctl submit --gpu a1", 3) == ["a100", "a10g"]
    assert complete("jobctl status my", 2) == ["my-run"]
