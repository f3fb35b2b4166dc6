"""`jobctl completion`."""

from __future__ import annotations

import click

from jobctl.cli.session import Session

HOW = {
    "bash": 'eval "$(jobctl completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(jobctl completion zsh)" in ~/.zshrc, after compinit',
    "fish": "jobctl completion fish > ~/.config/fish/completions/jobctl.fish",
}


@click.command("completion", epilog=" · ".join(f"{shell}: {line}" for shell, line in HOW.items()))
@click.argument("shell", type=click.Choice(sorted(HOW)))
@click.pass_obj
def completion_command(session: Session, shell: str) -> None:
    """Print the script that makes this shell complete jobctl's commands, options, jobs and profiles."""
    from click.shell_completion import get_completion_class

    from jobctl.cli.program import cli

    completion = get_completion_class(shell)
    assert completion is not None, "click brings all three shells"
    session.say(completion(cli, {}, "jobctl", "_JOBCTL_COMPLETE").source())
