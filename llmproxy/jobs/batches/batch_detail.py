"""What only a batch knows of its job: the JSON in the job's ``detail``."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from llmproxy.jobs.batches.input_validator import Entry
from llmproxy.jobs.job import Job


@dataclass(frozen=True, slots=True)
class Detail:
    """``blob`` names the input file's bytes, None where there was no such file when the batch was created.

    ``errors`` are those of validation. ``output_file_id`` and ``error_file_id`` are those of the last end; a file that
    would have no lines is none.
    """

    input_file_id: str
    blob: str | None = None
    metadata: Mapping[str, str] | None = None
    output_seconds: int | None = None
    errors: tuple[Entry, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None

    @classmethod
    def of(cls, job: Job) -> Self:
        return cls(**{**job.detail, "errors": tuple(job.detail.get("errors", ()))})

    def members(self) -> dict[str, Any]:
        """For ``NewJob.detail``."""
        return asdict(self)

    def changed(self, **members: Any) -> str:
        """The JSON with other ``members``, for the job's row."""
        return json.dumps(asdict(replace(self, **members)))
