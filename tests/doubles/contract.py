"""Reads code that uses TensorRT and says which names it may touch in a version that lacks them.

Follows which versions can reach a place: `hasattr(x, "name")`, `getattr(x, "name", None) is not None`, functions and
variables that hold such an answer, both branches, early returns, and who refers to a function or class. Names are
compared without their class, so a name that another class of the version has passes; the doubles catch those.
"""

import ast
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Set, Tuple

from tests.doubles.questions import (
    Definition,
    arguments,
    asked,
    defined,
    ends,
    guards_of,
    is_none,
    mentioned,
    place,
)

Versions = FrozenSet[str]
ROOTS = ("trt", "tensorrt", "_trt", "_tensorrt")


@dataclass(frozen=True)
class Complaint:
    """A name at a place that a version without it reaches."""

    file: str
    line: int
    name: str
    versions: Tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: '{self.name}' is reached in {', '.join(self.versions)}"


class Contract:
    """What versions have, and the code that is held against it.

    Args:
        has: the names of every claimed version.
        known: every name of any version, claimed or not; others are not TensorRT's.
        own: names that are in `known` and mean something else in this code.
    """

    def __init__(self, has: Mapping[str, FrozenSet[str]], known: FrozenSet[str], own: Iterable[str] = ()) -> None:
        self.has, self.known, self.own = has, known, frozenset(own)
        self.all: Versions = frozenset(has)
        self.complaints: Set[Complaint] = set()
        self.used: Set[str] = set()
        self.own_used: Set[str] = set()

    def versions(self, name: str) -> Versions:
        return frozenset(version for version, names in self.has.items() if name in names)

    def check(self, sources: Mapping[str, str], elsewhere: Iterable[str] = ()) -> List[Complaint]:
        """Complaints about sources, by file name.

        Args:
            sources: the code that uses TensorRT.
            elsewhere: the rest of the project's code; what it mentions may be reached in every version.
        """
        trees = {file: ast.parse(text) for file, text in sources.items()}
        outside = {name for text in elsewhere for name in mentioned(ast.parse(text))}
        guards = {name: guard for tree in trees.values() for name, guard in guards_of(tree).items()}
        reach: Dict[str, Versions] = {name: self.all for tree in trees.values() for name in defined(tree)}
        while True:  # from every version downwards, so that each round is an upper bound of what can be reached
            sites: Dict[str, Versions] = {}
            self.complaints, self.used = set(), set()
            for file, tree in trees.items():
                Reading(self, file, guards, reach, sites).block(tree.body, self.all)
            found = {name: self.all if name in outside else sites.get(name, self.all) for name in reach}
            if found == reach:
                return sorted(self.complaints, key=lambda one: (one.file, one.line, one.name))
            reach = found


class Reading:
    """One pass over one file."""

    def __init__(
        self,
        contract: Contract,
        file: str,
        guards: Mapping[str, ast.AST],
        reach: Mapping[str, Versions],
        sites: Dict[str, Versions],
    ) -> None:
        self.contract, self.file, self.guards, self.reach, self.sites = contract, file, guards, reach, sites
        self.strings: Dict[str, bool] = {}  # variables that hold nothing but names that were looked at
        self.conditions: List[List[str]] = []  # the arguments of `hasattr` in the comprehensions around

    def block(self, body: Iterable[ast.stmt], possible: Versions) -> None:
        """Statements in order; a branch that ends leaves what follows to the other."""
        for node in body:
            if isinstance(node, ast.If):
                yes, no = self.narrow(node.test)
                self.visit(node.test, possible)
                self.block(node.body, possible & yes)
                self.block(node.orelse, possible & no)
                if ends(node.body):
                    possible = possible & no
                if ends(node.orelse):
                    possible = possible & yes
            elif isinstance(node, Definition):
                for one in node.decorator_list:
                    self.visit(one, possible)
                self.block(node.body, possible & self.reach.get(node.name, self.contract.all))
            else:
                self.visit(node, possible)

    def narrow(self, test: ast.AST) -> Tuple[Versions, Versions]:
        """The versions in which a condition can hold, and those in which it can fail."""
        everything = self.contract.all
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            yes, no = self.narrow(test.operand)
            return no, yes
        if isinstance(test, ast.BoolOp):
            parts = [self.narrow(one) for one in test.values]
            yes, no = parts[0]
            for good, bad in parts[1:]:
                both = isinstance(test.op, ast.And)
                yes, no = (yes & good, no | bad) if both else (yes | good, no & bad)
            return yes, no
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and is_none(test.comparators[0]):
            yes, no = self.narrow(test.left)
            if isinstance(test.ops[0], (ast.Is, ast.IsNot)):
                return (no, yes) if isinstance(test.ops[0], ast.Is) else (yes, no)
        question = self.question(test)
        if question is None:
            return everything, everything
        there = self.contract.versions(question)
        return there, everything - there

    def question(self, test: ast.AST) -> Optional[str]:
        if isinstance(test, ast.Call) and asked(test) is None:
            called = place(test.func)
            return None if called is None else asked(self.guards.get(f"{called}()", test))
        key = place(test)
        return asked(test if key is None else self.guards.get(key, test))

    def visit(self, node: ast.AST, possible: Versions) -> None:
        """Expressions and simple statements."""
        if isinstance(node, Definition + (ast.If,)):
            self.block([node], possible)  # type: ignore[list-item]
        elif isinstance(node, ast.IfExp):
            yes, no = self.narrow(node.test)
            self.visit(node.test, possible)
            self.visit(node.body, possible & yes)
            self.visit(node.orelse, possible & no)
        elif isinstance(node, ast.BoolOp):
            for one in node.values:
                self.visit(one, possible)
                yes, no = self.narrow(one)
                possible = possible & (yes if isinstance(node.op, ast.And) else no)
        elif isinstance(node, (ast.For, ast.While, ast.With, ast.Try)):
            self.compound(node, possible)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            self.comprehension(node, possible)
        else:
            self.simple(node, possible)

    def comprehension(self, node: Any, possible: Versions) -> None:
        before = len(self.conditions)
        for one in node.generators:
            self.visit(one.iter, possible)
            for test in one.ifs:
                self.visit(test, possible)
                possible = possible & self.narrow(test)[0]
                if isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "hasattr":
                    self.conditions.append(arguments(test))
        for value in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(value, possible)
        del self.conditions[before:]

    def compound(self, node: Any, possible: Versions) -> None:
        for field, value in ast.iter_fields(node):
            if field in ("body", "orelse", "finalbody"):
                self.block(value, possible)
            elif field == "handlers":
                for one in value:
                    self.block(one.body, possible)
            elif isinstance(value, ast.AST):
                self.visit(value, possible)
            elif isinstance(value, list):
                for one in value:
                    self.visit(one, possible)

    def simple(self, node: ast.AST, possible: Versions) -> None:
        if isinstance(node, ast.Attribute):
            root = (place(node.value) or "").lstrip(".")
            if root != "np":
                self.use(node, node.attr, possible, rooted=root in ROOTS)
            self.refer(node.attr, possible)
        elif isinstance(node, ast.Name):
            self.refer(node.id, possible)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.strings[node.targets[0].id] = self.names_in(node.value, possible)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            self.dynamic(node, possible)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns"):
                continue
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, ast.AST):
                    self.visit(one, possible)

    def names_in(self, value: ast.AST, possible: Versions) -> bool:
        """Whether a value is one of some constant strings, each of which counts as used where it stands."""
        if isinstance(value, ast.IfExp):
            yes, no = self.narrow(value.test)
            both = [self.names_in(value.body, possible & yes), self.names_in(value.orelse, possible & no)]
            return all(both)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            self.use(value, value.value, possible)
            return True
        return False

    def dynamic(self, node: ast.Call, possible: Versions) -> None:
        """`getattr` with a name that is a constant, was looked at, or is asked for in the same comprehension."""
        what = node.args[1]
        if len(node.args) > 2:
            return  # has an answer where the name is missing
        if isinstance(what, ast.Constant):
            self.use(node, str(what.value), possible)
        elif not (isinstance(what, ast.Name) and self.strings.get(what.id)) and arguments(node) not in self.conditions:
            self.complain(node, "a name that is not known before it runs", possible)

    def use(self, node: ast.AST, name: str, possible: Versions, *, rooted: bool = False) -> None:
        contract = self.contract
        if name in contract.own and not rooted:
            self.contract.own_used.add(name)
            return
        if (name.startswith("_") and not rooted) or name == "__version__":
            return
        if name not in contract.known:
            if rooted:
                self.complain(node, name, possible)
            return
        contract.used.add(name)
        self.complain(node, name, possible - contract.versions(name))

    def complain(self, node: ast.AST, name: str, versions: Versions) -> None:
        if versions:
            line = int(getattr(node, "lineno", 0))
            self.contract.complaints.add(Complaint(self.file, line, name, tuple(sorted(versions))))

    def refer(self, name: str, possible: Versions) -> None:
        if name in self.reach:
            self.sites[name] = self.sites.get(name, frozenset()) | possible
