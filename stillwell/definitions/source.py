"""Where definitions stand in their files, and a digest of what they say there."""

import ast
import hashlib
import inspect
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator


def location(cls: type, field: str | None = None) -> str:
    """`schemas/departures.py:12`, the line of the field or of the class; the module's name where there is no file."""
    statement, first = _class_statement(cls)
    if statement is None:
        return cls.__module__
    line = next((node.lineno for node in statement.body if field and field in _names(node)), statement.lineno)
    return f"{shown_path(inspect.getsourcefile(cls) or cls.__module__)}:{first + line - 1}"


def shown_path(path: str) -> str:
    """A file as people name it: from the working directory where it lies below that, whole elsewhere."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def source_digest(*classes: type) -> str:
    """SHA-256 over what these classes say, and the functions and constants of their modules that they use, in hex.

    Comments, layout, docstrings, descriptions, owners and tags do not count. '' where there is no source to read. It
    tells that something was touched, not that anything is different: what is imported from elsewhere is not in it, and
    other versions of Python may write the same source otherwise.
    """
    texts: list[str] = []
    for cls in classes:
        statement, _ = _class_statement(cls)
        if statement is None:
            return ""
        texts += [_plain(node) for node in (statement, *_used(statement, _module_tree(cls)))]
    return hashlib.sha256("\n\n".join(texts).encode()).hexdigest()


def _class_statement(cls: type) -> tuple[ast.ClassDef | None, int]:
    """The syntax tree of a class, and the line of its file that is its first."""
    try:
        lines, first = inspect.getsourcelines(cls)
        (statement,) = ast.parse(textwrap.dedent("".join(lines))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return None, 0
    return (statement, first) if isinstance(statement, ast.ClassDef) else (None, 0)


def _module_tree(cls: type) -> ast.Module:
    return ast.parse(inspect.getsource(sys.modules[cls.__module__]))


def _used(statement: ast.AST, module: ast.Module) -> Iterator[ast.AST]:
    """The functions and constants of a module that a statement uses, and those that they use, in the module's order."""
    helpers = {
        name: node
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.Assign | ast.AnnAssign)
        for name in _names(node)
    }
    used: dict[str, ast.AST] = {}
    pending: list[ast.AST] = [statement]
    while pending:
        for node in ast.walk(pending.pop()):
            if isinstance(node, ast.Name) and node.id in helpers and node.id not in used:
                used[node.id] = helpers[node.id]
                pending.append(helpers[node.id])
    return (helpers[name] for name in helpers if name in used)


def _names(node: ast.AST) -> Iterable[str]:
    """What a statement defines."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
            return (name,)
        case ast.Assign(targets=targets):
            return tuple(target.id for target in targets if isinstance(target, ast.Name))
    return ()


class _WithoutDescriptions(ast.NodeTransformer):
    """Takes out docstrings and `description=…`, and of class statements `owner=…` and `tags=…`."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("owner", "tags")]
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        self.generic_visit(node)
        return None if isinstance(node.value, ast.Constant) else node


def _plain(node: ast.AST) -> str:
    return ast.unparse(_WithoutDescriptions().visit(node))
