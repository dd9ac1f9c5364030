"""The magics of a notebook, in IPython's own shell: a cell runs once, until something changes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

shell_module = pytest.importorskip("IPython.core.interactiveshell", reason="needs IPython")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Any]:
    """Return a shell that has loaded the extension and made a manager."""
    shell_module.InteractiveShell.clear_instance()
    made = shell_module.InteractiveShell.instance()
    made.history_manager.enabled = False
    made.run_line_magic("load_ext", "memories")
    open_store(made, tmp_path)
    made.user_ns["runs"] = []
    yield made
    made.run_cell("manager.cleanup()", silent=True).raise_error()
    shell_module.InteractiveShell.clear_instance()


def open_store(shell: Any, folder: Path) -> None:
    """Run the cell that makes the manager."""
    shell.run_cell(
        "from memories import MemoryManager\n"
        f"manager = MemoryManager('20MB', '20MB', 1, storage_path={str(folder / 'store')!r})",
        silent=True,
    ).raise_error()


CELL = (
    "runs.append(1)\nimport numpy as np\nimage = np.arange(6.0).reshape(2, 3) * year\nimage.sum()\n"
)


def test_a_cell_runs_once_and_its_variables_come_back(shell: Any, tmp_path: Path) -> None:
    """Again in the same kernel, and after a restart: nothing is computed, everything is there."""
    shell.user_ns["year"] = 2
    assert 30.0 == shell.run_cell_magic("memo", "composite --on year", CELL)
    del shell.user_ns["image"]
    assert 30.0 == shell.run_cell_magic("memo", "composite --on year", CELL)
    assert shell.user_ns["image"].shape == (2, 3)
    assert [1] == shell.user_ns["runs"]
    shell.run_cell("manager.cleanup()", silent=True).raise_error()
    shell.user_ns.pop("image")
    open_store(shell, tmp_path)
    assert 30.0 == shell.run_cell_magic("memo", "composite --on year", CELL)
    assert [1] == shell.user_ns["runs"]
    assert 10.0 == shell.user_ns["image"][1, 2]


def test_it_runs_again_when_something_changes(shell: Any) -> None:
    """Its code, its version, a variable; but not for a comment. Earlier results are removed."""
    shell.user_ns["year"] = 2
    run = shell.run_cell_magic
    run("memo", "composite --on year", CELL)
    run("memo", "composite --on year", CELL + "# a comment\n")
    assert 1 == len(shell.user_ns["runs"])
    assert 31.0 == run(
        "memo", "composite --on year", CELL.replace("image.sum()", "image.sum() + 1")
    )
    shell.user_ns["year"] = 3
    assert 45.0 == run("memo", "composite --on year", CELL)
    run("memo", "composite --on year --version 2", CELL)
    assert 4 == len(shell.user_ns["runs"])
    assert 1 == sum(1 for _ in shell.user_ns["manager"].scan("memo/composite/"))


def test_what_comes_back_is_as_if_the_cell_had_run(shell: Any) -> None:
    """Imports and definitions are there, arrays may be written to, other variables are left."""
    cell = (
        "runs.append(1)\nimport numpy as numbers\nscale = 2\n"
        "def scaled(x, by=scale):\n    inner = x * by\n    return inner\n"
        "values = numbers.array([scaled(i) for i in range(3)])\n"
        "total = sum(map(lambda each: (last := each), values))\n"
    )
    run = shell.run_cell_magic
    names = shell.user_ns
    names["i"], names["inner"] = "mine", "mine"
    run("memo", "a", cell)
    names["values"][0] = 7
    for name in ("numbers", "scaled", "values", "total", "scale"):
        del names[name]
    names["i"], names["inner"] = "newer", "newer"
    run("memo", "a", cell)
    assert [1] == names["runs"]
    assert ("newer", "newer") == (names["i"], names["inner"])
    assert (6, 4) == (names["total"], names["scaled"](2))
    names["values"] += 1
    assert [1, 3, 5] == names["values"].tolist()
    assert "last" not in names
    assert "array" in dir(names["numbers"])


def test_a_cell_that_awaits_is_refused_before_it_runs(shell: Any) -> None:
    """A magic is a plain function; nothing of the cell has run."""
    from memories import InvalidOptionError

    for last in ("await sleep(0)\n", "slept = await sleep(0)\n", "[x async for x in y]\n"):
        with pytest.raises(InvalidOptionError, match="the cell awaits something"):
            shell.run_cell_magic("memo", "a", f"runs.append(1)\n{last}")
    with pytest.raises(SyntaxError):
        shell.run_cell_magic("memo", "a", "runs.append(1)\nreturn 1\n")
    assert [] == shell.user_ns["runs"]


def test_a_cell_that_fails_keeps_nothing(shell: Any) -> None:
    """Its error is raised, and the next run runs it again."""
    with pytest.raises(ZeroDivisionError):
        shell.run_cell_magic("memo", "broken", "runs.append(1)\nvalue = 1 / 0\n")
    assert [] == list(shell.user_ns["manager"].scan("memo/"))
    assert 5 == shell.run_cell_magic("memo", "broken", "runs.append(1)\nvalue = 5\nvalue\n")


def test_what_is_wrong_is_said(shell: Any) -> None:
    """No such variable, what cannot be kept, several managers."""
    from memories import InvalidOptionError, UnsupportedTypeError

    with pytest.raises(InvalidOptionError, match="--on nothing: there is no such variable"):
        shell.run_cell_magic("memo", "a --on nothing", "x = 1\n")
    with pytest.raises(UnsupportedTypeError, match="the cell has run, but what it assigned"):
        shell.run_cell_magic("memo", "a", "lines = (line for line in [])\n")
    assert shell.run_line_magic("memories", "") is shell.user_ns["manager"]
    with pytest.raises(InvalidOptionError, match="'other' is not a variable"):
        shell.run_line_magic("memories", "other")
    shell.run_cell("other = MemoryManager('1MB', '1MB', '1MB')", silent=True).raise_error()
    with pytest.raises(InvalidOptionError, match=r"the notebook has 2 managers \(manager, other\)"):
        shell.run_cell_magic("memo", "a", "x = 1\n")
    shell.run_cell_magic("memo", "a -m other", "x = 1\n")
    assert 1 == len(shell.user_ns["other"])
    shell.user_ns["other"].cleanup()
    shell.user_ns.pop("other")
    shell.user_ns.pop("manager").cleanup()
    with pytest.raises(InvalidOptionError, match="the notebook has no manager"):
        shell.run_line_magic("memories", "")
    shell.run_cell("manager = MemoryManager('1MB', '1MB', '1MB')", silent=True).raise_error()


def test_the_notebook_of_the_examples_runs_as_it_is_shown(repository: Path, tmp_path: Path) -> None:
    """In a real kernel; what depends on the machine is not compared."""
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient")
    pytest.importorskip("ipykernel", reason="needs a kernel of Python")
    shown = nbformat.read(repository / "examples/notebook.ipynb", as_version=4)
    again = copy.deepcopy(shown)
    nbclient.NotebookClient(
        again, timeout=240, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert results_of(shown) == results_of(again)
    assert "(652, 652)" in results_of(shown)


def results_of(notebook: Any) -> list[str]:
    """Return what the cells show as text."""
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
    return [one.data["text/plain"] for one in outputs if "text/html" not in one.data]
