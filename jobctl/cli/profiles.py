"""`jobctl profiles`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from jobctl.cli.options import KINDS
from jobctl.cli.output import emit, output_option, print_table
from jobctl.cli.session import Session
from jobctl.profiles import load_all


@click.command("profiles")
@output_option
@click.pass_obj
def profiles_command(session: Session, output: str) -> None:
    """List the GPU profiles and what each kind of job gets on them."""
    session.say_where()
    document = {"backend": session.where_document, "profiles": [_document(profile) for profile in load_all()]}
    emit(document, output, _table)


def _document(profile: Any) -> dict[str, Any]:
    return {
        "name": profile.name,
        "description": profile.description,
        "device": profile.device,
        "gpuMemoryGiB": profile.gpu_memory_gib,
        "products": list(profile.products),
        "kinds": {kind: asdict(sizes) for kind, sizes in profile.kinds.items()},
    }


def _table(document: dict[str, Any]) -> None:
    rows = [
        (
            profile["name"],
            profile["device"],
            profile["gpuMemoryGiB"],
            *(f"{sizes['cpu']} CPU, {sizes['memory']}" for sizes in (profile["kinds"][kind] for kind in KINDS)),
            profile["description"],
        )
        for profile in document["profiles"]
    ]
    print_table(("PROFILE", "DEVICE", "GPU GIB", *(kind.upper() for kind in KINDS), "DESCRIPTION"), rows)
