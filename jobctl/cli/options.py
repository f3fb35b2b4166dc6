"""Options and arguments that several commands share. Flags of submit set the same keys as the spec."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

_Command = Callable[..., Any]
KINDS = ("collect", "train", "eval")  # as jobctl.spec has them, which would cost every command its import
DETACHED = 130  # exit status after Ctrl-C stopped the watching: as a shell reports SIGINT


def name_argument(command: _Command) -> _Command:
    """NAME, completed from the jobs that there are."""
    return click.argument("name", shell_complete=_job_names)(command)


def spec_options(command: _Command) -> _Command:
    """KIND, -f and the flags that set a spec's keys."""
    options = (
        click.argument("kind", required=False, metavar="[KIND]", shell_complete=_from(KINDS)),
        click.option("-f", "--file", "path", metavar="FILE", help="A spec, or several in one YAML file."),
        click.option("--name", metavar="NAME", help="The job's name, a DNS label. [KIND-TASK, or the file's name]"),
        click.option("--task", metavar="TASK", help="The system that is trained. [predictor]"),
        click.option("--gpu", metavar="PROFILE", shell_complete=_profile_names, help="A GPU profile. [cpu]"),
        click.option("--allow-cpu", is_flag=True, default=None, help="Run a GPU profile without a GPU, too."),
        click.option("--replicas", type=int, metavar="N", help="Pods. [1]"),
        click.option("--preset", metavar="PRESET", help="conservative, balanced or aggressive. [balanced]"),
        click.option("--data", metavar="PATH", help="The dataset on the volume, for example datasets/NAME."),
        click.option("--from", "from_run", metavar="RUN", help="The run whose weights are judged or started from."),
        click.option("--image", metavar="IMAGE", help="The worker's container image."),
        click.option(
            "--set", "assignments", multiple=True, metavar="KEY=VALUE",
            help="A setting of the task (steps=400), or any key of the spec (checkpoint.keep=5).",
        ),
        allow_env_option,
        click.option("--fresh", is_flag=True, help="Start the run anew; what it wrote so far is set aside."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def allow_env_option(command: _Command) -> _Command:
    """--allow-env NAME, remembered by the session. It is typed with each call: no file can say it."""

    def remember(ctx: click.Context, option: click.Parameter, names: tuple[str, ...]) -> None:
        ctx.obj.allowed_env = names

    return click.option(
        "--allow-env", multiple=True, metavar="NAME", expose_value=False, callback=remember,
        help="On this machine, let env set a variable that runs code (PYTHONPATH, LD_PRELOAD).",
    )(command)  # fmt: skip


def _from(words: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    return lambda ctx, param, incomplete: [word for word in words if word.startswith(incomplete)]


def _job_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    import os

    from jobctl.backend import choose
    from jobctl.cli.backends import open_backend
    from jobctl.errors import JobctlError

    try:
        root = ctx.find_root().params
        backend = open_backend(
            choose(root.get("backend"), os.environ), context=root.get("context"), namespace=root.get("namespace")
        )
        names = [record.name for record in backend.records()]
    except JobctlError:  # a shell's completion has nowhere to show it
        return []
    return sorted(name for name in names if name.startswith(incomplete))


def _profile_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from jobctl import profiles

    return [name for name in profiles.names() if name.startswith(incomplete)]
