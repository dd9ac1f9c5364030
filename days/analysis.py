"""Day 2: an analysis with memoized steps, run again and again, and edited in between.

Each twin runs the same script, with its own cache in the opening lines, as `python study.py`. The
judge edits the script before each run, and knows which steps must be computed then, and which not.
Every answer is compared with that of the same script without a cache.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from days.judging import Bar, Judgement, Run, Scale
from days.running import missing, script

OPENINGS = {
    "nothing": """
def cached(function):
    return function
""",
    "memories": """
from memories import MemoryManager
manager = MemoryManager(1, 2, 10, storage_path=HERE / "results")
cached = manager.cache
""",
    "joblib": """
import joblib
cached = joblib.Memory(HERE / "results", verbose=0).cache
""",
    "diskcache": """
import diskcache
store = diskcache.Cache(HERE / "results", size_limit=10**10)
cached = store.memoize()
""",
}

BODY = '''
THRESHOLD = 0.5

def kernel(width):
    return np.hanning(width + 2)[1:-1] / width

@cached
def load(seed, kilobytes):
    print("computed: load", kilobytes)
    image = np.random.default_rng(seed).standard_normal((kilobytes, 250), dtype=np.float32)
    waves = np.fft.rfft(image, axis=1)
    return np.fft.irfft(waves * np.linspace(1, 0, 126), 250, axis=1).astype(np.float32)

@cached
def smooth(image, width):
    print("computed: smooth", len(image))
    for _ in range(4):
        result = np.zeros_like(image)
        for shift, weight in enumerate(kernel(width)):
            result[shift:] += image[: len(image) - shift] * np.float32(weight)
        image = result
    return image

@cached
def mask(image):
    print("computed: mask", len(image))
    return image > np.quantile(image, THRESHOLD, axis=0)

@cached
def describe(image, inside):
    """Return what the report needs."""
    print("computed: describe", len(image))
    chosen = image[inside]
    return {"mean": float(chosen.mean()), "std": float(chosen.std()), "count": chosen.size}

def report(kilobytes, found):
    print("answer:", kilobytes, found)

def main(width, *sizes):
    for kilobytes in sizes:
        image = smooth(load(kilobytes, kilobytes), width)
        report(kilobytes, describe(image, mask(image)))

if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
'''

START = """
import sys
from pathlib import Path
import numpy as np
HERE = Path(__file__).resolve().parent
"""
BY_ANOTHER = "import sys, study\nstudy.main(*map(int, sys.argv[1:]))\n"
ALL = ("load", "smooth", "mask", "describe")


class Step(NamedTuple):
    """One run of the script, after an edit, and the functions that must be computed in it."""

    name: str
    must: tuple[str, ...] = ()
    edit: Callable[[str], str] = str
    width: int = 3
    program: str = "study.py"
    elsewhere: bool = False  # Another working directory.


def _replaced(old: str, new: str) -> Callable[[str], str]:
    def edit(source: str) -> str:
        assert old in source
        return source.replace(old, new)

    return edit


def _beside(source: str) -> str:
    """Edit what changes no result."""
    source = _replaced('"""Return', '# Once a week.\n    """Compute')(source)
    return _replaced('print("answer:", ', 'print("answer:", "size", ')(source)


STEPS = [
    Step("first", ALL),
    Step("again"),
    Step("from another directory", elsewhere=True),
    Step("imported by another script", program="nightly.py"),
    Step("a comment, a docstring, a function beside them edited", edit=_beside),
    Step("another argument", ALL[1:], width=5),
    Step("the argument of before"),
    Step("a helper edited", ALL[1:], edit=_replaced("/ width", "/ (width + 1)")),
    Step("a constant edited", ALL[2:], edit=_replaced("= 0.5", "= 0.25")),
    Step("the constant of before", edit=_replaced("= 0.25", "= 0.5")),
]


def judge(scale: Scale, folder: Path) -> Judgement:
    """Edit and run the script of every twin, and compare what was computed and answered."""
    # A large result that is computed faster than it is read is not kept on disk. None is here.
    sizes = (16, 48) if scale is Scale.SMALL else (1_000, 10_000, 200_000)
    absent = {name: why for name in ("joblib", "diskcache") if (why := missing(name))}
    right = _session("nothing", sizes, folder / "nothing")
    judgement = Judgement("Analysis over several runs", {}, [], absent=absent)
    runs: dict[str, Run] = {"nothing, first": right[0], "nothing, again": right[1]}
    again: dict[str, float] = {}
    for name in [twin for twin in OPENINGS if twin != "nothing" and twin not in absent]:
        # diskcache keeps arguments as they are, in SQLite: minutes with the largest array.
        given = sizes[:2] if name == "diskcache" else sizes
        title = name if given == sizes else f"{name}, without the largest"
        found = _session(name, given, folder / name)
        runs |= {f"{title}, first": found[0], f"{title}, again": found[1]}
        again[name] = found[1].seconds
        needless, stale = 0, 0
        for step, one, expected in zip(STEPS, found, right, strict=True):
            computed, answers = _read(one)
            must = {f"{function} {size}" for function in step.must for size in given}
            needless += len(computed - must)
            wrong = [line for line in answers if line not in _read(expected)[1]]
            stale += len(wrong)
            if name == "memories":
                assert not wrong, f"{step.name}: {wrong}"
                assert must <= computed, f"{step.name}: {sorted(must - computed)} not computed"
        judgement.facts |= {
            f"{name}: computed needlessly": needless,
            f"{name}: wrong answers": stale,
            f"{name}: seconds of {len(STEPS)} runs": round(sum(one.seconds for one in found), 1),
        }
    judgement.runs = runs
    judgement.bars = [
        Bar("computed needlessly", judgement.facts["memories: computed needlessly"], 0, True),
        Bar("wrong answers", judgement.facts["memories: wrong answers"], 0, True),
    ]
    if "joblib" in again:
        ratio = again["memories"] / again["joblib"]
        judgement.bars.append(Bar("second run, of joblib's time", ratio, 0.5))
    return judgement


def _session(name: str, sizes: tuple[int, ...], folder: Path) -> list[Run]:
    """Run all steps with one cache, in processes of their own.

    Without a cache a script that ran before is not run again: its answers are known.
    """
    folder.mkdir(parents=True)
    (folder / "nightly.py").write_text(BY_ANOTHER)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    body, runs = BODY, []
    known: dict[tuple[str, int], Run] = {}
    for number, step in enumerate(STEPS):
        body = step.edit(body)
        (folder / "study.py").write_text(START + OPENINGS[name] + body)
        arguments = [sys.executable, folder / step.program, step.width, *sizes]
        if name == "nothing" and number > 1 and (body, step.width) in known:
            runs.append(known[body, step.width])
            continue
        one = script(arguments, folder, cwd=elsewhere if step.elsewhere else folder)
        runs.append(one)
        known[body, step.width] = one
    return runs


def _read(run: Run) -> tuple[set[str], list[str]]:
    """Return what a run computed, and what it answered."""
    lines = run.answer.splitlines()
    computed = [line.removeprefix("computed: ") for line in lines if line.startswith("computed: ")]
    assert len(computed) == len(set(computed))
    return set(computed), [line for line in lines if line.startswith("answer: ")]
