"""The program: global options, the table of commands, and how errors become one sentence and an exit status.

Commands are imported when they run, not before.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import click

from jobctl.cli.output import say
from jobctl.cli.session import Session
from jobctl.errors import JobctlError
from jobctl.version import __version__

# verb → (module of jobctl.cli, one line of help). The command is its VERB_command.
COMMANDS: dict[str, tuple[str, str]] = {
    "submit": ("submit", "Start a job, or several in order from a file."),
    "render": ("submit", "Print exactly what submit would send."),
    "list": ("read", "Show every job and its state."),
    "status": ("read", "Show one job: state, reason, progress, replicas, what to do next."),
    "logs": ("logs", "Print what the replicas wrote."),
    "events": ("events", "Show what the cluster did about a job."),
    "wait": ("wait", "Wait until a job ends; its end is the exit status."),
    "cancel": ("control", "Stop a job and mark it as not wanted."),
    "suspend": ("control", "Stop a job for now; its pods save first."),
    "resume": ("control", "Go on after suspend or cancel."),
    "retry": ("control", "Start an ended or interrupted job again, from its last save."),
    "delete": ("control", "Forget a job. What it wrote on its volume stays."),
    "results": ("results", "Show a run's results; fetch them, plots and weights too."),
    "data": ("data", "List a dataset's episodes; draw one of them."),
    "doctor": ("doctor", "Check what jobs need of the cluster, and say what to do."),
    "profiles": ("profiles", "List the GPU profiles."),
    "completion": ("completion", "Print the completion script of a shell."),
}

BACKEND_HELP = "Where jobs run. [$JOBCTL_BACKEND; else local where no cluster is configured]"
CONTEXT_HELP = "The kubeconfig's context. [the current one]"
NAMESPACE_HELP = "The namespace of the jobs. [the context's]"
DEBUG_HELP = "Show a traceback with an error."
EPILOG = (
    "Exit status: 0 fine · 1 the job failed · 2 usage · 3 not found · 4 cluster unreachable · 5 refused · "
    "124 wait's --timeout passed · 130 you stopped watching with Ctrl-C (no failure: the job goes on)."
)


class LazyGroup(click.Group):
    """A group that knows its commands' names and help from a table, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = getattr(import_module(f"jobctl.cli.{COMMANDS[cmd_name][0]}"), f"{cmd_name}_command")
        for one in (command, *getattr(command, "commands", {}).values()):
            known = {parameter.name for parameter in one.params}
            one.params += [option for option in _everywhere() if option.name not in known]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from jobctl.errors import nearest

            ctx.fail(f"There is no command {args[0]!r}{nearest(args[0], COMMANDS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


# option → the Session's attribute
REMEMBERED = {
    "backend": "backend_flag",
    "context": "context_flag",
    "namespace": "namespace_flag",
    "debug": "debug",
}


def _everywhere() -> list[click.Option]:
    """The global options. Commands have them once more: people write them after the command as often as before it."""

    def remember(ctx: click.Context, option: click.Parameter, value: str | bool | None) -> None:
        if value:
            setattr(ctx.ensure_object(Session), REMEMBERED[str(option.name)], value)

    more: dict[str, Any] = {"expose_value": False, "callback": remember}
    return [
        click.Option(["--backend"], metavar="local|kubernetes", help=BACKEND_HELP, **more),
        click.Option(["--context"], metavar="NAME", help=CONTEXT_HELP, **more),
        click.Option(["-n", "--namespace"], metavar="NAME", help=NAMESPACE_HELP, **more),
        click.Option(["--debug"], is_flag=True, help=DEBUG_HELP, **more),
    ]


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jobctl", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Batch jobs that collect simulated episodes, train on them and judge what was trained."""
    ctx.ensure_object(Session)


cli.params += _everywhere()


def run(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status; prints one sentence, and a traceback only with --debug."""
    session = Session()
    try:
        status = cli.main(args=arguments, prog_name="jobctl", standalone_mode=False, obj=session) or 0
        session.close()
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message(), err=True)
        return error.exit_code
    except click.ClickException as error:
        say(f"error: {_sentence(error)}", err=True)
        return error.exit_code
    except JobctlError as error:
        _trace(session)
        say(f"error: {error}", err=True)
        return error.exit_status
    except OSError as error:
        _trace(session)
        say(f"error: {_what_failed(error)}", err=True)
        return JobctlError.exit_status
    except click.Abort:
        return 130
    finally:
        with contextlib.suppress(JobctlError):  # an error before this one is the one to tell
            session.close()


def _trace(session: Session) -> None:
    """Print where the error came from, with --debug: not by the interpreter, which escapes nothing."""
    if session.debug:
        import traceback

        say(traceback.format_exc().rstrip(), err=True)


def _what_failed(error: OSError) -> str:
    """A file system's complaint, with the file: `/x/y: Permission denied.`"""
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror or error}."


def _sentence(error: click.ClickException) -> str:
    """click's message in one line, with where to read more."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{message} (see `{context.command_path} --help`)" if context is not None else message


def help_module() -> str:
    """jobctl/cli/help_text.py: what click makes of all this, so that main.py can print it without click."""
    # click leaves a margin of two: this is its width in a terminal of 80 columns or more
    text = click.Context(cli, info_name="jobctl", terminal_width=78, **cli.context_settings).get_help()
    return (
        '"""What `jobctl --help` prints. Written by `python -m jobctl.cli.program`; edit that module instead."""\n\n'
        f'TEXT = """\\\n{text}\n"""\n'
    )


if __name__ == "__main__":
    print(help_module(), end="")
