"""Adds the compiled core to a wheel, where it can be compiled; every other wheel is pure Python.

`MEMORIES_INTERPRETED=1` makes a pure wheel everywhere, and `0` no wheel at all without the compiled
core. If neither is said, a compiler that is missing or fails never fails an installation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).resolve().parent))
import compile_core

CHOICE = os.environ.get("MEMORIES_INTERPRETED", "")


class CompiledCore(BuildHookInterface[Any]):
    """Compiles the core before a wheel is put together, or before an editable installation."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what the compilation needs, where there is one."""
        return [] if CHOICE == "1" or compile_core.lacking() else compile_core.NEEDED

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the files; say why, where that is not possible."""
        if CHOICE == "1":
            return
        try:
            folder = compile_core.compile_core()
        except compile_core.CannotCompileError as error:
            if CHOICE == "0":
                raise
            self.app.display_warning(f"the core will run interpreted: {error}")
            return
        if version == "editable":
            return  # It finds the folder beside the sources.
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for file in folder.rglob("*"):
            if file.is_file():
                build_data["force_include"][str(file)] = str(
                    file.relative_to(compile_core.PACKAGE.parent)
                )
