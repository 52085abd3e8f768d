"""What code that uses TensorRT asks of it: `hasattr` and `getattr` with a default, and what holds the answer."""

import ast
from typing import Dict, Iterable, List, Optional, Set

Definition = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def defined(tree: ast.Module) -> Iterable[str]:
    """Functions and classes of a module, and methods that only their class calls."""
    for node in tree.body:
        if isinstance(node, Definition):
            yield node.name
        if isinstance(node, ast.ClassDef):
            methods = [one for one in node.body if isinstance(one, Definition)]
            yield from (one.name for one in methods if one.name.startswith("_") and not one.name.startswith("__"))


def mentioned(tree: ast.Module) -> Iterable[str]:
    """Every name in a module, also in its strings, which may be import strings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            yield node.value.rpartition(":")[2]


def asked(node: ast.AST) -> Optional[str]:
    """The name that `hasattr(x, "name")` or `getattr(x, "name", None)` asks for."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
        what, enough = node.args[1], {"hasattr": 2, "getattr": 3}.get(node.func.id)
        if len(node.args) == enough and isinstance(what, ast.Constant) and isinstance(what.value, str):
            return what.value
    return None


def place(node: ast.AST) -> Optional[str]:
    """A variable or attribute, as a key."""
    if isinstance(node, ast.Name):
        return node.id
    return f".{node.attr}" if isinstance(node, ast.Attribute) else None


def guards_of(tree: ast.Module) -> Dict[str, ast.AST]:
    """Variables, attributes and functions that hold the answer to such a question, and the question."""
    found: Dict[str, ast.AST] = {}
    twice: Set[str] = set()
    for node in ast.walk(tree):
        key, value = None, None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            key, value = place(node.targets[0]), node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            key, value = place(node.target), node.value
        elif isinstance(node, ast.FunctionDef) and isinstance(node.body[-1], ast.Return) and node.body[-1].value:
            plain = [one for one in node.body[:-1] if not isinstance(one, ast.Expr)]
            key, value = (None if plain else f"{node.name}()"), node.body[-1].value
        if key is None or value is None:
            continue
        if key in found or key in twice or asked(value) is None:
            found.pop(key, None)  # a name that is also something else proves nothing
            twice.add(key)
        else:
            found[key] = value
    return found


def arguments(node: ast.Call) -> List[str]:
    """A call's arguments, to compare with another's."""
    return [ast.dump(one) for one in node.args]


def ends(body: List[ast.stmt]) -> bool:
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
