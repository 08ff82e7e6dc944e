"""Each released major line of the official client, in a virtual environment of its own that is built once."""

import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSIONS = ("1.109.1", "2.54.0", "3.54.0")
DRIVER = Path(__file__).parent / "driver.py"


@dataclass(frozen=True, slots=True)
class Job:
    """One call for the driver to make. ``call`` is a function of the driver's table."""

    name: str
    call: str
    prompt: str = "hello"
    headers: dict[str, str] = field(default_factory=dict)
    retries: int = 0


def run(python: Path, url: str, jobs: list[Job]) -> dict[str, Any]:
    """The outcome of every job by its name, as the client of that interpreter saw it."""
    order = json.dumps({"url": url, "jobs": [asdict(job) for job in jobs]})
    command = [str(python), str(DRIVER)]
    done = subprocess.run(command, check=False, input=order, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert isinstance(outcomes, dict)
    return outcomes
