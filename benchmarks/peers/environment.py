"""A peer's own virtual environment, where its dependencies clash with ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lilliput.errors import LilliputError

HOME = Path(__file__).parent


def interpreter(name: str, *, create: bool, alone: Sequence[str] = ()) -> Path | None:
    """The Python of the environment `.venv-NAME`, made from `requirements-NAME.txt` if asked for.

    Args:
        name: Of the peer.
        create: Make it where it is not there; else None is returned.
        alone: What is installed afterwards without what it asks for.
    """
    home = HOME / f".venv-{name}"
    python = home / "bin" / "python"
    if not python.is_file() and create:
        install = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([*install, "-r", str(HOME / f"requirements-{name}.txt")], check=True)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True)
    return python if python.is_file() else None


def output_of(python: Path, script: str, *arguments: Path | str, peer: str) -> str:
    """What a script of this folder prints when the peer's Python runs it.

    Raises:
        LilliputError: It failed; the end of what it said is in the error.
    """
    command = [str(python), str(HOME / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LilliputError(f"{peer} failed: {done.stderr[-400:]}", at=str(arguments[0]))
    return done.stdout
