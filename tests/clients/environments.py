"""Environments with one client each. Built once, in a folder that is kept from run to run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from uv import find_uv_bin

#: a registry that is slow must not look like a client that does not work
_SECONDS = 300


def python_with(package: str, folder: Path) -> Path:
    """The interpreter of an environment with this package, as pip names it with its version."""
    home = folder / package.replace("[", "-").replace("]", "")
    python, built = home / "bin" / "python", home / "built"
    if not built.exists():
        _run([find_uv_bin(), "venv", "--quiet", "--clear", "--python", sys.executable, str(home)])
        _run([find_uv_bin(), "pip", "install", "--quiet", "--python", str(python), package])
        built.touch()
    return python


def node_with(packages: list[str], folder: Path) -> Path:
    """The folder in which Node finds these packages. Skips the test where there is no Node."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        if os.environ.get("CI"):
            pytest.fail("Node and npm are not installed, and here they must be")
        pytest.skip("Node and npm are not installed")
    home = folder / "-".join(package.replace("/", "-") for package in packages)
    built = home / "built"
    if not built.exists():
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "package.json").write_text("{}")
        _run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], home)
        built.touch()
    return home


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
