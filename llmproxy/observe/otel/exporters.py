"""The exporters that the environment names, found among those installed."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}
_DEFAULT_PROTOCOL = "http/protobuf"


class NoExporter(Exception):
    """The environment names an exporter that is not there; the message says which."""


def exporters(environment: Mapping[str, str]) -> list[Any]:
    """New exporters of traces; each reads its own part of the environment.

    Raises ``NoExporter``, and whatever an exporter raises that does not like the environment.
    """
    names = environment.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return [_exporter(name.strip(), environment) for name in names.split(",")]


def _exporter(name: str, environment: Mapping[str, str]) -> Any:
    wanted = name
    if name == "otlp":
        protocol = _protocol(environment)
        wanted = _PROTOCOLS.get(protocol, "")
        if not wanted:
            raise NoExporter(f"the protocol {protocol!r} is none of {', '.join(_PROTOCOLS)}")
    found = tuple(entry_points(group="opentelemetry_traces_exporter", name=wanted))
    if not found:
        raise NoExporter(f"the exporter {wanted!r} for traces is not installed")
    return found[0].load()()


def _protocol(environment: Mapping[str, str]) -> str:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environment.get(name, "").strip():
            return protocol
    return _DEFAULT_PROTOCOL
