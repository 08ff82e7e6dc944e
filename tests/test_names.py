"""A class's name is used once over the package; a module's name twice only where it means the same thing."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "llmproxy"

#: names of modules that several rooms have, with what they mean in each
SHARED = {
    "api": "HTTP handlers of the room's own paths",
    "client": "an HTTP client: of model servers, and of the proxy itself",
    "document": "one kind of object as JSON",
    "endpoint": "an ASGI application behind a path",
    "errors": "the room's errors",
    "embeddings": "embeddings, as dialect and as strategy of the pipeline",
    "events": "events of a stream that is kept",
    "explain": "why a request was no hit: the verb and its work",
    "health": "how the program fares: the paths and the verb",
    "headers": "header fields: how they are read, and which of them pass",
    "history": "requests as rows: the room's face and its paths",
    "jobs": "jobs for operators: paths and verb",
    "lifespan": "opening and closing",
    "ollama": "Ollama: the dialect of its own API, and the kind of server",
    "params": "query parameters and members of a request, read strictly",
    "performance": "figures of the last minutes, hours and days",
    "routes": "a table of URLs",
    "serialize": "rows as JSON documents",
    "services": "what the room hands to those who serve requests",
    "state": "what is kept while something runs",
    "store": "reading and writing the room's rows",
    "sweep": "removing what is too old",
    "tables": "the room's tables",
    "worker": "working on jobs: the program, the verb and the work",
    "writer": "writing behind, in groups",
}


def places(kind: type[ast.stmt]) -> dict[str, list[str]]:
    """Name -> the modules with a top-level statement of this kind and name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        for statement in ast.parse(file.read_text()).body:
            if isinstance(statement, kind) and isinstance(name := getattr(statement, "name", None), str):
                found[name].append(str(file.relative_to(PACKAGE)))
    return found


def test_a_class_is_found_by_its_name() -> None:
    assert {name: files for name, files in places(ast.ClassDef).items() if len(files) > 1} == {}


def test_a_modules_name_means_one_thing() -> None:
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(PACKAGE.rglob("*.py")):
        if not file.stem.startswith("__"):
            modules[file.stem].append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in modules.items() if len(files) > 1 and name not in SHARED} == {}
    assert {name for name in SHARED if len(modules[name]) < 2} == set()
