"""Which errors the three packages can raise: code, class and sentence, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import edgepure.errors
from edgepure.errors import EdgepureError

from .page import ROOT

PACKAGES = ("runtime/edgepure", "export/edgepure_export", "calibration/edgepure_calibration")


def kinds() -> dict[str, type[EdgepureError]]:
    """The public classes of errors by name."""
    found = vars(edgepure.errors).values()
    return {c.__name__: c for c in found if isinstance(c, type) and issubclass(c, EdgepureError)}


class Module:
    """One source file.

    Args:
        tree: its syntax.
        families: the public class behind every class of errors, and behind every function that raises one with a code
            that it was given.
        constants: texts that modules gave a name, by that name.
    """

    def __init__(self, tree: ast.Module, families: dict[str, str], constants: dict[str, str]) -> None:
        self.tree, self._families, self._constants = tree, families, constants
        self._parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        self._functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Every call of a class of errors, or of a function that takes its code, with the public class."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and (family := self._family(node)):
                local = self._functions.get(_name(node.func))
                if local is None or _takes_code(local):
                    yield node, family

    def raised(self) -> Iterator[tuple[str, str, str]]:
        """Code, class ("": not known) and sentence of every error with a code."""
        for node in ast.walk(self.tree):
            if not (isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("E-")):
                continue
            call = self._call_of(node)
            if call is None:  # chosen before it is raised
                family = forwarded(self._scope(node), self._families)
                yield from ((node.value, family, sentence) for sentence in self._beside(node))
            else:
                message = next((a for a in call.args if _is_text(a)), call.args[0])
                yield from ((node.value, self._family(call), sentence) for sentence in self._sentences(message))

    def _family(self, call: ast.Call) -> str:
        name = _name(call.func)
        local = self._functions.get(name)
        if local is not None and isinstance(local.returns, ast.Name):
            return self._families.get(local.returns.id, "")
        scope = self._scope(call)
        arguments = scope.args.args if isinstance(scope, ast.FunctionDef) else []
        for argument, default in (
            zip(reversed(arguments), reversed(scope.args.defaults), strict=False) if arguments else ()
        ):
            if argument.arg == name:  # whoever calls chooses the class
                name = _name(default)
        called_by_name = isinstance(call.func, ast.Name) or name[:1].isupper()  # `parity.require` is another function
        return self._families.get(name, "") if called_by_name else ""

    def _call_of(self, constant: ast.Constant) -> ast.Call | None:
        """The call whose ``code=`` a constant stands in."""
        node: ast.AST = constant
        while not isinstance(node, ast.stmt):
            parent = self._parents[node]
            if isinstance(node, ast.keyword) and node.arg == "code" and isinstance(parent, ast.Call):
                return parent
            node = parent
        return None

    def _scope(self, node: ast.AST) -> ast.FunctionDef | ast.Module:
        while not isinstance(node, ast.FunctionDef | ast.Module):
            node = self._parents[node]
        return node

    def _beside(self, constant: ast.Constant) -> Iterator[str]:
        """The sentence in the tuple, or in the statement before, where a code is chosen together with its sentence."""
        parent = self._parents[constant]
        if isinstance(parent, ast.Tuple):
            yield max((self._text(e) for e in parent.elts if e is not constant and _is_text(e)), key=len, default="...")
        elif isinstance(parent, ast.Assign):
            above = self._parents[parent]
            blocks = [getattr(above, name, []) for name in ("body", "orelse", "finalbody")]
            block = next(b for b in blocks if parent in b)
            before = block[block.index(parent) - 1]
            if isinstance(before, ast.Assign) and _is_text(before.value):
                yield self._text(before.value)

    def _sentences(self, node: ast.expr) -> Iterator[str]:
        """What a message may be: as it stands, out of a function of the same file, or collected in a variable."""
        if isinstance(node, ast.IfExp):
            yield from self._sentences(node.body)
            yield from self._sentences(node.orelse)
        elif isinstance(node, ast.Call) and _name(node.func) in self._functions:
            for inner in ast.walk(self._functions[_name(node.func)]):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from self._sentences(inner.value)
        elif isinstance(node, ast.Call) and _name(node.func) == "join" and isinstance(node.args[0], ast.Name):
            for inner in ast.walk(self._scope(node)):
                if isinstance(inner, ast.Call) and _name(inner.func) == "append":
                    yield from self._sentences(inner.args[0])
        elif isinstance(node, ast.Name) and node.id not in self._constants:
            for inner in ast.walk(self._scope(node)):
                named = isinstance(inner, ast.Assign) and node.id in map(_name, inner.targets)
                if named and (_is_text(inner.value) or isinstance(inner.value, ast.IfExp)):
                    yield from self._sentences(inner.value)
        else:
            yield self._text(node)

    def _text(self, node: ast.expr) -> str:
        """A sentence as it stands in the source, with ``{name}`` or ... for what is filled in."""
        if isinstance(node, ast.Constant):
            return str(node.value)
        if isinstance(node, ast.JoinedStr):
            return "".join(self._text(part) for part in node.values)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._text(node.left) + self._text(node.right)
        inner = node.value if isinstance(node, ast.FormattedValue) else node
        if isinstance(inner, ast.Name):
            return self._constants.get(inner.id, f"{{{inner.id}}}")
        return f"{{{inner.attr}}}" if isinstance(inner, ast.Attribute) else "..."


@cache
def modules() -> dict[Path, Module]:
    """Every module of the three packages."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    trees = {path: ast.parse(path.read_bytes()) for path in paths}
    families = {name: name for name in kinds()}
    constants: dict[str, str] = {}
    for node in (node for tree in trees.values() for node in tree.body):
        if isinstance(node, ast.ClassDef):
            for base in map(_name, node.bases):
                if base in families:
                    families.setdefault(node.name, families[base])
        elif (
            isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            constants |= {_name(target): node.value.value for target in node.targets}
    for node in (node for tree in trees.values() for node in tree.body):
        if isinstance(node, ast.FunctionDef) and _takes_code(node) and not node.name.startswith("_"):
            families[node.name] = forwarded(node, families)
    return {path: Module(tree, families, constants) for path, tree in trees.items()}


def forwarded(scope: ast.AST, families: dict[str, str]) -> str:
    """The class of the error that a function raises with a code which it was given or has chosen before."""
    for node in ast.walk(scope):
        chosen = isinstance(node, ast.Call) and [k for k in node.keywords if k.arg == "code" and _name(k.value)]
        if chosen and _name(node.func) in families:
            return families[_name(node.func)]
    return ""


def _takes_code(function: ast.FunctionDef) -> bool:
    return "code" in [argument.arg for argument in function.args.kwonlyargs]


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")


def _is_text(node: ast.expr) -> bool:
    if isinstance(node, ast.BinOp):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
