"""Definitions that a later one of the same name replaces before anybody sees them: Python says nothing of it."""

import ast
import importlib.util
import pathlib
from collections.abc import Iterator, Sequence

from stillwell.definitions.source import shown_path


def overwritten(name: str) -> Iterator[str]:
    """A mistake for each class or alias of a package, or module, that another one in its file replaces, and for each
    field of a class. Reads the files without running them; what cannot be read is for the import to tell."""
    for path in _files(name):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue
        yield from _doubles(tree.body, "", path)


def _files(name: str) -> list[pathlib.Path]:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # of a package above it, which was imported for this
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations:
        return sorted(path for folder in spec.submodule_search_locations for path in pathlib.Path(folder).rglob("*.py"))
    return [pathlib.Path(spec.origin)] if spec.origin else []


def _doubles(body: Sequence[ast.stmt], prefix: str, path: pathlib.Path) -> Iterator[str]:
    lines: dict[str, int] = {}
    for statement in body:
        name = _defines(statement)
        if name is None:
            continue
        first = lines.setdefault(name, statement.lineno)
        if first != statement.lineno:
            yield (
                f"{shown_path(str(path))}:{statement.lineno}: {prefix}{name} stands in line {first} already, and only "
                "this one would count; rename one, or take it out"
            )
        if isinstance(statement, ast.ClassDef):
            yield from _doubles(statement.body, f"{prefix}{name}.", path)


def _defines(statement: ast.stmt) -> str | None:
    """The name of the class, the field with a type or the alias that a statement defines."""
    if isinstance(statement, ast.ClassDef):
        return statement.name
    if isinstance(statement, ast.Assign):
        return _alias(statement)
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        return statement.target.id
    return None


def _alias(statement: ast.Assign) -> str | None:
    """`Origin`, of `Origin = AirportDepartures.at(…)`."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Attribute(attr="at"))):
            return name
    return None
