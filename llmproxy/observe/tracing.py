"""Traces for OpenTelemetry, switched on by its standard environment variables; otherwise nothing of it is imported."""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, cast

from llmproxy.observe.metrics import Metrics

log = logging.getLogger(__name__)

_SETUP_MODULE = "llmproxy.observe.otel.setup"


class Tracing(Protocol):
    """Traces of requests for a collector. Belongs to one event loop."""

    @property
    def tracer(self) -> Any:
        """Begins a request's part in its trace; None without traces."""
        ...

    def name_kinds(self, kinds: Callable[[str], str]) -> None:
        """``kinds`` gives the kind of the upstream with this name, a value of a closed list."""
        ...

    @property
    def room(self) -> int:
        """The number of requests that may still be queued."""
        ...

    def record(self, requests: Sequence[Any]) -> None:
        """Takes finished requests that ``tracer`` began. What finds no room to wait in is lost and counted."""
        ...

    async def close(self, limit: float) -> None:
        """Sends what waits, within ``limit`` seconds."""
        ...


class NoTracing:
    """No traces."""

    tracer = None
    room = 0

    def name_kinds(self, kinds: Callable[[str], str]) -> None: ...

    def record(self, requests: Sequence[Any]) -> None: ...

    async def close(self, limit: float) -> None: ...


def open_tracing(environment: Mapping[str, str], metrics: Metrics, version: str) -> Tracing:
    """Opens what ``environment`` asks for. What cannot be opened is logged, and requests go on without it."""
    if not is_tracing_enabled(environment):
        return NoTracing()
    try:
        opening = import_module(_SETUP_MODULE)
    except ImportError as error:
        log.warning(
            "no traces for OpenTelemetry (%s): pip install 'llm-caching-proxy[otel]' brings what is missing", error
        )
        return NoTracing()
    try:
        return cast(Tracing, opening.open_otel(environment, metrics, version))
    except Exception as error:  # noqa: BLE001  the exporters read the environment: whatever they find wrong with it
        log.warning("OpenTelemetry cannot be used (%s); requests go on without it", error)
        return NoTracing()


def is_tracing_enabled(environment: Mapping[str, str]) -> bool:
    """Whether there is an exporter for traces, or a place to send them.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip()
    if exporter:
        return exporter != "none"
    places = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(environment.get(place, "").strip() for place in places)
