"""A class's name is used once over the package; a module's name twice only where it means the same thing."""

import ast
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "llmproxy"

#: names of modules that several rooms have, with what they mean in each
SHARED = {
    "cache": "the cache for operators: paths and verb",
    "chat": "chat completions: the dialect, and those that can be asked for again",
    "client": "an HTTP client: of model servers, and of the proxy itself",
    "embeddings": "embeddings, as dialect and as strategy of the pipeline",
    "errors": "the room's errors",
    "explain": "why a request was no hit: the verb and its work",
    "headers": "which headers pass, and what they say",
    "health": "how the program fares: the paths and the verb",
    "history": "requests as rows: the room's face and its paths",
    "jobs": "jobs for operators: paths and verb",
    "lifespan": "opening and closing",
    "ollama": "Ollama: the dialect of its own API, and the kind of server",
    "performance": "figures of the last minutes, hours and days",
    "responses": "Responses: the dialect, and those that can be asked for by their ids",
    "routes": "a table of URLs",
    "services": "what the room hands to those who serve requests",
    "state": "what is kept while something runs",
    "tables": "the room's tables",
    "worker": "working on jobs: the program, the verb and the work",
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
