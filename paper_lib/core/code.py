"""What code does a stage run? A digest for `stages.lock`, comments and docstrings left out.

`stages.toml` names the functions that a stage begins with. From there every function, class and
constant of this package that they mention, directly or through others, belongs to the stage.
Bookkeeping (folders, locks, profiles) does not: it cannot change a result.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import tomllib

from . import paths

BOOKKEEPING = {
    f"core.{name}"
    for name in ("code", "config", "errors", "manifest", "parallel", "paths", "stages", "verify")
}
LOCK = paths.ROOT / "stages.lock"

# read when the package is imported, so that a file edited later cannot pass for the code that runs
_SOURCES = {
    ".".join(p.relative_to(paths.PACKAGE).with_suffix("").parts): p.read_text()
    for p in sorted(paths.PACKAGE.rglob("*.py"))
}


@functools.cache
def declared() -> dict[str, dict]:
    """Stage -> version, code (functions it begins with), packages: the content of stages.toml."""
    return tomllib.loads((paths.PACKAGE / "stages.toml").read_text())


@functools.cache
def digest(stage: str) -> str:
    """SHA-256 of all code of this package that `stage` runs."""
    return digest_of(declared()[stage]["code"], _SOURCES)


@functools.cache
def package_digest() -> str:
    """SHA-256 of all code of the package: what decides whether a notebook is run again."""
    trees = [dumped(_without_docstrings(ast.parse(text))) for _, text in sorted(_SOURCES.items())]
    return hashlib.sha256("".join(trees).encode()).hexdigest()


def locked() -> dict[str, dict]:
    """Stage -> version and digest, as the maintainers committed them."""
    return json.loads(LOCK.read_text()) if LOCK.exists() else {}


def vouched(stage: str) -> bool:
    """Does stages.lock say that the present code of `stage` is what its version stands for?"""
    return locked().get(stage) == {"version": declared()[stage]["version"], "digest": digest(stage)}


def accept(stage: str) -> None:
    """Enter the present code of `stage` into stages.lock, under its declared version."""
    entries = locked() | {stage: {"version": declared()[stage]["version"], "digest": digest(stage)}}
    entries = {name: entries[name] for name in sorted(entries) if name in declared()}
    paths.write_beside(LOCK, json.dumps(entries, indent=1) + "\n")


def digest_of(entries: list[str], sources: dict[str, str]) -> str:
    """SHA-256 of the definitions that `entries` reach within `sources`.

    An entry is a "module.name"; sources: module -> its text.
    """
    names = frozenset(sources)
    modules = {name: _module(name, text, names) for name, text in sources.items()}
    todo = [tuple(entry.rsplit(".", 1)) for entry in entries]
    parts = {}
    while todo:
        module, name = todo.pop()
        if name in modules[module].imports and name not in modules[module].definitions:
            module, name = modules[module].imports[name]  # (taken from there by another)
        if (module, name) in parts or module in BOOKKEEPING:
            continue
        if name not in modules[module].definitions:
            raise KeyError(f"{module} defines no {name}")
        parts[module, name], mentioned = modules[module].read(name)
        todo += mentioned
    rows = sorted([*key, text] for key, text in parts.items())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def dumped(node) -> str:
    """`ast.dump` without empty fields, of which each version of Python has others."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return f"{type(node).__name__}({', '.join(f'{n}={dumped(v)}' for n, v in fields)})"
    if isinstance(node, list):
        return f"[{', '.join(map(dumped, node))}]"
    return repr(node)


class _Module:
    """A source file: its top-level definitions, and what of the package they mention."""

    def __init__(self, name: str, text: str, sources: frozenset[str]):
        self.name, self.sources = name, sources
        self._known: dict[str, tuple[str, list[tuple[str, str]]]] = {}
        tree = _without_docstrings(ast.parse(text))
        self.definitions: dict[str, list[ast.AST]] = {}
        # statements that change other modules when this one is imported
        self.effects: list[ast.AST] = []
        self.imports = self._imported(tree.body)
        for node in tree.body:
            match node:
                case ast.FunctionDef() | ast.ClassDef():
                    names = [node.name]
                case ast.Assign() | ast.AnnAssign():
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names = [
                        n.id
                        for t in targets
                        for n in ast.walk(t)
                        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
                    ]
                    if not names:
                        self.effects.append(node)
                case _:
                    names = []
            for one in names:
                self.definitions.setdefault(one, []).append(node)

    def _imported(self, body) -> dict[str, tuple[str, str]]:
        """Local name -> (module, name) of what relative imports bring in.

        A module that is imported itself has the name "".
        """
        found: dict[str, tuple[str, str]] = {}
        package = self.name.split(".")[:-1]
        for node in [n for top in body for n in ast.walk(top)]:
            if isinstance(node, ast.ImportFrom) and node.level:
                above = package[: len(package) - node.level + 1]
                parts = [*above, *(node.module or "").split(".")]
                base = ".".join(part for part in parts if part)
                for alias in node.names:
                    inner = f"{base}.{alias.name}" if base else alias.name
                    target = (inner, "") if inner in self.sources else (base, alias.name)
                    found[alias.asname or alias.name] = target
        return found

    def read(self, name: str) -> tuple[str, list[tuple[str, str]]]:
        """The text of a definition, and all that it mentions; worked out once."""
        if name not in self._known:
            nodes = self.definitions[name] + self.effects
            mentioned = [found for node in nodes for found in self.mentions(node)]
            self._known[name] = "".join(dumped(node) for node in nodes), mentioned
        return self._known[name]

    def mentions(self, node: ast.AST) -> set[tuple[str, str]]:
        out = set()
        for n in ast.walk(node):
            if isinstance(n, ast.Name):
                if n.id in self.definitions:
                    out.add((self.name, n.id))
                elif self.imports.get(n.id, ("", ""))[1]:
                    out.add(self.imports[n.id])
            elif isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name):
                module, name = self.imports.get(n.value.id, ("", "x"))
                if not name and module in self.sources:
                    out.add((module, n.attr))
        return {(m, n) for m, n in out if m in self.sources}


_module = functools.cache(_Module)  # (a stage reads nearly all, and there are many stages)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and len(body) > 1
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body.pop(0)
    return tree
