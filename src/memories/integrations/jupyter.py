"""The magics of IPython and Jupyter: `%load_ext memories` gives `%%memo` and `%memories`.

`%%memo` keeps what a cell computes: the variables that it assigns, and the value of its last line.
The key of a result names the cell by its code; what the cell reads from other cells is named with
`--on`.
"""

from __future__ import annotations

import ast
import inspect
from types import CodeType
from typing import Any, Final

from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments, parse_argstring

from memories.codecs.content_hash import content_hash
from memories.core.manager import MemoryManager
from memories.errors import InvalidOptionError, UnsupportedTypeError
from memories.sharing import SharedMemoryManager

_KINDS = (MemoryManager, SharedMemoryManager)
_PREFIX = "memo/"
# They run in no time, and what they make cannot be kept in all cases: they run each time.
_IMPORTS: Final = (ast.Import, ast.ImportFrom)
_DEFINITIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@magics_class
class MemoryMagics(Magics):
    """What `%load_ext memories` brings."""

    @magic_arguments()
    @argument("name", help="The name of the result, in the keys of the manager.")
    @argument(
        "-m", "--manager", default="", help="The variable of the manager, if there are several."
    )
    @argument("--version", default="", help="Raise it when something changes that is not named.")
    @argument(
        "--on", action="append", default=[], help="A variable that the cell reads; repeatable."
    )
    @cell_magic
    def memo(self, line: str, cell: str) -> Any:
        """Run a cell once, and take what it has assigned from the tiers from then on.

        It runs again when its code, `--version` or the content of a variable of `--on` changes. Its
        imports and definitions run each time; what it prints is not kept.

            %%memo composite --on year
            image = build(year)
            image.mean()
        """
        given = parse_argstring(self.memo, line)
        manager = self._manager(given.manager)
        tree = ast.parse(self.shell.transform_cell(cell))
        file = self.shell.compile.cache(cell)
        key = f"{_PREFIX}{given.name}/{self._digest(tree, given.version, given.on)}"
        kept = manager.retrieve(key, None, copy=True)  # A cell may write to what it has assigned.
        if kept is None:
            shown = self._run(tree, file)
            namespace = self.shell.user_ns
            assigned = {name: namespace[name] for name in assigned_by(tree) if name in namespace}
            kept = {"names": assigned, "shown": shown}
            _keep(manager, key, given.name, kept)
        else:
            self._bring_back(tree, file, kept["names"])
        return kept["shown"]

    @line_magic
    def memories(self, line: str) -> Any:
        """Show the state of a manager: of the variable that is named, or of the only one."""
        return self._manager(line.strip())

    def _run(self, tree: ast.Module, file: str) -> Any:
        """Run the statements of a cell, and return what its last expression gives."""
        last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        before = [statement for statement in tree.body if statement is not last]
        run = _compiled(ast.Module(before, []), file)
        show = None if last is None else _compiled(ast.Expression(last.value), file)
        exec(run, self.shell.user_ns)
        return None if show is None else eval(show, self.shell.user_ns)

    def _bring_back(self, tree: ast.Module, file: str, names: dict[str, Any]) -> None:
        """Assign what a cell has assigned, and do again what it imports and defines."""
        namespace = self.shell.user_ns
        imports: list[ast.stmt] = [one for one in tree.body if isinstance(one, _IMPORTS)]
        exec(_compiled(ast.Module(imports, []), file), namespace)
        namespace.update(names)
        definitions: list[ast.stmt] = [one for one in tree.body if isinstance(one, _DEFINITIONS)]
        exec(_compiled(ast.Module(definitions, []), file), namespace)

    def _manager(self, name: str) -> Any:
        """Return the manager of a variable, or the only one that there is.

        Raises:
            InvalidOptionError: there is none, or several.
        """
        variables = self.shell.user_ns
        found = {key: one for key, one in variables.items() if isinstance(one, _KINDS)}
        if name:
            if name not in found:
                raise InvalidOptionError(f"{name!r} is not a variable that refers to a manager")
            return found[name]
        own = {key: one for key, one in found.items() if not key.startswith("_")}
        if not own:
            raise InvalidOptionError(
                "the notebook has no manager: make one first, as in "
                "`manager = MemoryManager(storage_path='store')`"
            )
        if len({id(one) for one in own.values()}) > 1:
            raise InvalidOptionError(
                f"the notebook has {len(own)} managers ({', '.join(sorted(own))}): name one, as in "
                "`%%memo NAME -m manager`"
            )
        return next(iter(own.values()))

    def _digest(self, tree: ast.Module, version: str, on: list[str]) -> str:
        """Return what tells one state of a cell from another.

        Raises:
            InvalidOptionError: a variable does not exist.
            UnsupportedTypeError: the content of a variable cannot be compared.
        """
        parts: list[Any] = [ast.dump(tree), version]
        for name in on:
            if name not in self.shell.user_ns:
                raise InvalidOptionError(f"--on {name}: there is no such variable")
            parts.append((name, self.shell.user_ns[name]))
        return content_hash(tuple(parts), code=False)


def _keep(manager: Any, key: str, name: str, kept: dict[str, Any]) -> None:
    """Store a result, and remove those of earlier states of the cell."""
    try:
        manager.store(key, kept)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(
            f"the cell has run, but what it assigned cannot be kept: {error}"
        ) from error
    earlier = [old for old in manager.scan(f"{_PREFIX}{name}/") if old != key]
    manager.delete_many(earlier)


def _compiled(code: ast.Module | ast.Expression, file: str) -> CodeType:
    """Compile a part of a cell.

    Raises:
        InvalidOptionError: it awaits something.
    """
    mode = "exec" if isinstance(code, ast.Module) else "eval"
    made: CodeType = compile(code, file, mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    if made.co_flags & inspect.CO_COROUTINE:
        raise InvalidOptionError(
            "the cell awaits something, and %%memo cannot: decorate a coroutine function with "
            "`@manager.cache`, and await it in a cell without %%memo"
        )
    return made


def assigned_by(tree: ast.Module) -> list[str]:
    """Return the variables that the statements of a cell assign, in their order."""
    found = _Assigned()
    found.visit(tree)
    return list(dict.fromkeys(found.names))


class _Assigned(ast.NodeVisitor):
    """Collects the variables of a cell, and none of its functions, classes and comprehensions."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def visit(self, node: ast.AST) -> None:
        """Look at a node and at those below it."""
        if isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.names.append(node.id)
        if isinstance(node, ast.comprehension):  # Its variables are its own.
            for part in (node.iter, *node.ifs):
                self.visit(part)
        else:
            self.generic_visit(node)
