"""Shows judgements: as tables in Markdown, as JSON, and as one picture."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from days.judging import Judgement
from memories.compiled import core


def machine() -> str:
    """Return what the figures were measured on."""
    how = "compiled" if core().compiled else "interpreted"
    return f"Python {platform.python_version()}, {platform.machine()}, {sys.platform}, core {how}"


def text(judgement: Judgement) -> str:
    """Return one day's programs and bars as Markdown."""
    lines = [
        f"\n### {judgement.title}\n",
        "| program | seconds | of the processor | peak RAM, MB | disk, MB |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {name} | {one.seconds:.2f} | {one.cpu_seconds:.2f} | {one.peak_rss / 1e6:,.0f} "
        f"| {one.disk / 1e6:,.0f} |"
        for name, one in judgement.runs.items()
    ]
    lines += [f"| {name} | {why} | | | |" for name, why in judgement.absent.items()]
    if judgement.facts:
        facts = ", ".join(f"{name} {value:,.10g}" for name, value in judgement.facts.items())
        lines += ["", f"{facts}."]
    lines += ["", "| bar | measured | at most | the floor | |", "|---|---:|---:|---:|---|"]
    for bar in judgement.bars:
        missed = "missed" if bar.reachable else "missed, as the floor does"
        floor = "" if bar.floor is None else f"{bar.floor:.3g}"
        lines.append(
            f"| {bar.text} | {bar.value:.3g} | {bar.at_most:g} | {floor} "
            f"| {'' if bar.met else missed} |"
        )
    return "\n".join(lines)


def keep(judged: Mapping[str, Judgement], folder: Path) -> None:
    """Write `days.json` and `days.png`: a panel per day with the seconds of each program."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    plain = {
        day: {
            "title": one.title,
            "runs": {
                name: {key: value for key, value in asdict(run).items() if key != "answer"}
                for name, run in one.runs.items()
            },
            "bars": [
                asdict(bar) | {"met": bar.met, "reachable": bar.reachable} for bar in one.bars
            ],
            "facts": one.facts,
            "absent": one.absent,
        }
        for day, one in judged.items()
    }
    (folder / "days.json").write_text(json.dumps(plain, indent=1))
    ran = [one for one in judged.values() if one.runs]
    heights = [len(one.runs) + 2 for one in ran]  # Every bar is as thick as the others.
    figure, axes = plt.subplots(
        len(ran), 1, figsize=(9, 0.24 * sum(heights)), squeeze=False,
        gridspec_kw={"height_ratios": heights},
    )  # fmt: skip
    for axis, one in zip(axes.flat, ran, strict=True):
        names = list(one.runs)
        colours = ["#1f6f8b" if name.startswith("memories") else "#b8bfc6" for name in names]
        bars = axis.barh(names, [run.seconds for run in one.runs.values()], color=colours)
        axis.bar_label(bars, fmt=" %.2f s", fontsize=7)
        axis.set_title(one.title, loc="left", fontsize=9)
        axis.invert_yaxis()
        axis.margins(x=0.12, y=0.01)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(folder / "days.png", dpi=110)
    plt.close(figure)
