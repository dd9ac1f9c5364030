"""The days, small: every program gives the right answers, and every bar that is counted is met.

Seconds are judged by `make days` only.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from days.__main__ import DAYS, judge
from days.judging import Scale
from days.tables import keep, text


@pytest.mark.timeout(300)
@pytest.mark.parametrize("day", DAYS)
def test_a_day(day: str, tmp_path: Path) -> None:
    """A judge raises where a program's answer is wrong; the table names all that ran."""
    judgement = judge(day, Scale.SMALL, tmp_path)
    if not judgement.runs:
        pytest.skip(str(judgement.absent))
    assert [] == [bar for bar in judgement.bars if bar.counted and not bar.met]
    assert all(name in text(judgement) for name in judgement.runs)
    keep({day: judgement}, tmp_path)
    assert (tmp_path / "days.png").stat().st_size > 1000
