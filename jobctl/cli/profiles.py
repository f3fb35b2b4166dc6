"""`jobctl profiles`."""

from __future__ import annotations

from typing import Any

import click

from jobctl.cli.output import emit, output_option, print_table
from jobctl.cli.session import Session
from jobctl.profiles import load_all


@click.command("profiles")
@output_option
@click.pass_obj
def profiles_command(session: Session, output: str) -> None:
    """List the GPU profiles. What a job asks for of a node follows its need: `jobctl render` shows it."""
    session.say_where()
    document = {"backend": session.where_document, "profiles": [_document(profile) for profile in load_all()]}
    emit(document, output, _table)


def _document(profile: Any) -> dict[str, Any]:
    return {
        "name": profile.name,
        "description": profile.description,
        "device": profile.device,
        "gpuMemoryGiB": profile.gpu_memory_gib,
        "cpuShareMillicores": profile.cpu_share_millicores,
        "hostMemoryMiB": profile.host_memory_mib,
        "products": list(profile.products),
    }


def _table(document: dict[str, Any]) -> None:
    rows = [
        (
            profile["name"],
            profile["device"],
            profile["gpuMemoryGiB"],
            f"{profile['cpuShareMillicores'] / 1000:g}",
            profile["description"],
        )
        for profile in document["profiles"]
    ]
    print_table(("PROFILE", "DEVICE", "GPU GIB", "CPUS AT MOST", "DESCRIPTION"), rows)
