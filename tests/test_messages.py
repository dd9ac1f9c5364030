"""All error messages have one style, so that a program can join them and a user can read them.

A message begins with a small letter, a digit, a quote or a value, and ends without a full stop;
several sentences are joined by ": " or "; ".
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "memories"
MODULES = sorted(PACKAGE.rglob("*.py"))
VALUE = "{}"  # Stands for what an f-string fills in.
NAMES = ("Arrow", "NumPy", "Valkey", "S3")  # They keep their capital letter.
# "This is not a size" is easier to read than "this is no size"; "there is no size" is fine.
UNCLEAR = re.compile(r"(?<!\bthere )\b(is|are|was|were) no (?!longer\b)|\b(who|some)(ever|body)\b")


def messages(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each literal message of an error that is raised or made."""
    raised = {id(node.exc) for node in ast.walk(tree) if isinstance(node, ast.Raise)}
    for node in ast.walk(tree):
        made = isinstance(node, ast.Call) and (id(node) in raised or is_error(node.func))
        if made and node.args:
            text = text_of(node.args[0])
            if text is not None:
                yield node.lineno, text


def is_error(function: ast.expr) -> bool:
    """Return whether a call of `function` makes an exception."""
    name = ast.unparse(function).rpartition(".")[2]
    return name.endswith(("Error", "Failure", "Exception")) and (
        name[0].isupper() or hasattr(builtins, name)
    )


def text_of(node: ast.expr) -> str | None:
    """Return a literal text with `{}` for each value in it, None if the text is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (one.value if isinstance(one, ast.Constant) else VALUE for one in node.values)
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return f"{VALUE if left is None else left}{VALUE if right is None else right}"
    return None


def faults(text: str) -> list[str]:
    """Return what is wrong with a message."""
    found = []
    if text[:1].isupper() and not text.startswith(NAMES):
        found.append("begins with a capital letter")
    if text.endswith(".") and not text.endswith("..."):
        found.append("ends with a full stop")
    if re.search(r"[a-z)}'\"]\. [A-Z]", text):
        found.append("has a full stop inside")
    if unclear := UNCLEAR.search(text):
        found.append(f"says {unclear[0]!r}")
    return found


def test_messages_have_one_style() -> None:
    """A message that is part of another one must read well there, too."""
    assert [] == [
        f"{path.relative_to(PACKAGE)}:{line}: {what}: {text}"
        for path in MODULES
        for line, text in messages(ast.parse(path.read_text("utf-8")))
        for what in faults(text)
    ]


def test_the_rule_finds_what_it_forbids() -> None:
    """The rule itself is tested: it must not pass because it sees nothing."""
    source = (
        'raise ValueError("Bad thing.")\n'
        'raise ValueError(f"{name} is no number")\n'
        'raise StorageError(f"it failed. Try " + "again")\n'
        'raise StorageError("the disk is full: free some space")\n'
    )
    found = [len(faults(text)) for _, text in messages(ast.parse(source))]
    assert [2, 1, 1, 0] == found
