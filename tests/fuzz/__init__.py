"""What makes hostile inputs: seeded mutations of an artefact, and harnesses for atheris."""

from __future__ import annotations

import sys
from collections.abc import Callable


def run(one_input: Callable[[bytes], None]) -> None:
    """Call a harness with what atheris thinks of, by the command line's options (`-runs=N`, `-max_len=N`, a folder)."""
    try:
        import atheris
    except ImportError:
        sys.exit("skipped: atheris is not installed; run: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
