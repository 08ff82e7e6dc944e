"""The page's scripts and styles, each put together into one file when the program starts. There is no build step.

Libraries are classic scripts that set a global. Our modules import one another by the few forms that ``_IMPORT`` and
``_EXPORT`` read; each becomes a function that returns what it exports.
"""

import re
from pathlib import Path

#: in the order in which they are loaded
LIBRARIES = ("preact.min.umd.js", "hooks.umd.js", "htm.umd.js", "uPlot.iife.min.js", "marked.umd.js")
STYLES = ("vendor/uPlot.min.css", "base.css", "parts.css", "views.css")
ENTRY = "app.js"

_IMPORT = re.compile(r'^import \{([^}]+)\} from "(\.[^"]+)";$', re.MULTILINE)
_EXPORT = re.compile(
    r"^export (?=(?:async )?function\*? (\w+)|class (\w+)|(?:const|let) (\w+)|const \{([^}]+)\})", re.MULTILINE
)
_LEFT = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)
_SOURCE_MAP = re.compile(r"^//# sourceMappingURL=.*$", re.MULTILINE)


def styles(folder: Path) -> bytes:
    return b"\n".join((folder / name).read_bytes() for name in STYLES)


def script(folder: Path) -> bytes:
    """Raises ``ValueError`` for an import or export of another form, and for modules that import one another in a
    circle."""
    libraries = [_SOURCE_MAP.sub("", (folder / "vendor" / name).read_text()) for name in LIBRARIES]
    modules: dict[str, str] = {}
    _add(folder, (folder / ENTRY).resolve(), modules, ())
    ours = "\n".join(['"use strict";', "const modules = {};", *modules.values()])
    return "\n;\n".join([*libraries, f"(() => {{\n{ours}\n}})();\n"]).encode()


def _add(folder: Path, file: Path, modules: dict[str, str], above: tuple[Path, ...]) -> None:
    """Adds a module behind those it imports."""
    name = file.relative_to(folder.resolve()).as_posix()
    if file in above:
        raise ValueError(f"{name} imports itself by way of others")
    if name in modules:
        return
    text = file.read_text()
    for found in _IMPORT.finditer(text):
        _add(folder, (file.parent / found[2]).resolve(), modules, (*above, file))
    exports = [
        word.strip() for found in _EXPORT.finditer(text) for word in next(filter(None, found.groups())).split(",")
    ]

    def destructured(found: re.Match[str]) -> str:
        imported = (file.parent / found[2]).resolve().relative_to(folder.resolve()).as_posix()
        return f'const {{{found[1].replace(" as ", ": ")}}} = modules["{imported}"];'

    body = _EXPORT.sub("", _IMPORT.sub(destructured, text))
    if left := _LEFT.search(body):
        raise ValueError(f"{name}: {left[0]!r} cannot be bundled")
    modules[name] = f'modules["{name}"] = (() => {{ // {name}\n{body}\nreturn {{ {", ".join(exports)} }};\n}})();'
