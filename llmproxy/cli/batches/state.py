"""What is known of a batch that was begun: a small file beside the output, so that the same command goes on with it."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from llmproxy.cli.failure import CommandFailed


@dataclass(frozen=True)
class State:
    """``key`` makes the upload and the batch the same ones however often they are asked for (Idempotency-Key);
    ``batch`` is its id, "" before that is known."""

    url: str
    sha256: str
    key: str
    batch: str = ""


class StateFile:
    """The file of one output. Methods raise ``OSError`` where it cannot be written."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f"{output.name}.llmproxy-batch")

    def read(self) -> State | None:
        """None where nothing was begun. Raises ``CommandFailed`` for a file that is not ours."""
        try:
            return State(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise CommandFailed(f"{self.path} is not understood; delete it to begin anew") from error

    def begin(self, url: str, sha256: str) -> State:
        """A new one, before anything is sent."""
        return self.write(State(url, sha256, secrets.token_hex(16)))

    def begun(self, state: State, batch: str) -> State:
        """The batch is there."""
        return self.write(replace(state, batch=batch))

    def write(self, state: State) -> State:
        part = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        part.write_text(json.dumps(asdict(state)), encoding="utf-8")
        part.replace(self.path)
        return state

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
