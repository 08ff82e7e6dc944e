"""``python -m deploy.grafana.build`` writes ``dashboards``; with ``--check`` it only says which are out of date."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.panels import Board, built
from deploy.grafana.program import PROGRAM
from deploy.grafana.requests import REQUESTS

BOARDS = (REQUESTS, PROGRAM)
FOLDER = Path(__file__).parent / "dashboards"


def main(arguments: list[str]) -> None:
    """Ends with exit code 1 where ``--check`` is given and a file differs from what it would be."""
    stale = [board for board in BOARDS if _text(_file(board)) != render(board)]
    if stale and "--check" in arguments:
        names = ", ".join(_file(board).name for board in stale)
        sys.exit(f"out of date: {names}; run python -m deploy.grafana.build")
    for board in stale:
        _file(board).write_text(render(board), encoding="utf-8")


def render(board: Board) -> str:
    """The dashboard as Grafana reads it."""
    return json.dumps(built(board).build(), cls=JSONEncoder, sort_keys=True, indent=2) + "\n"


def _file(board: Board) -> Path:
    return FOLDER / f"{board.uid}.json"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


if __name__ == "__main__":
    main(sys.argv[1:])
