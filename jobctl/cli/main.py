"""The entry point. Imports next to nothing: click alone takes longer to load than all of `jobctl --help` may take."""

from __future__ import annotations

import atexit
import gc
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Returns the exit status."""
    if (sys.argv[1:] if arguments is None else arguments) in (["--help"], ["-h"]) and _is_wide():
        from jobctl.cli.help_text import TEXT

        try:
            print(TEXT, end="", flush=True)
            return 0
        except (OSError, UnicodeError):  # click says what is wrong with stdout, or works around it
            pass
    # At its end the interpreter would look through all that was imported for cycles to free, a tenth of the whole time.
    atexit.register(gc.freeze)
    from jobctl.cli.program import run

    return run(arguments)


def _is_wide() -> bool:
    """Whether click would print its help in 80 columns, the most that it uses."""
    if "COLUMNS" in os.environ:  # click knows what such a variable means
        return False
    try:
        return os.get_terminal_size().columns >= 80
    except OSError:  # no terminal
        return True


if __name__ == "__main__":
    sys.exit(main())
