"""`memories demo`: a map viewer on a real raster, shown while it runs and measured at its end.

The viewer pans and zooms over a raster that is much larger than the two tiers in RAM, and reads the
time series of single pixels. It only stores and retrieves; the manager moves the tiles.
"""

from __future__ import annotations

from pathlib import Path

import click

from memories.cli.exit_codes import CliFailure
from memories.cli.output import print_json
from memories.cli.store import json_option


@click.command()
@click.option(
    "--picture",
    type=click.Path(path_type=Path),
    default=Path("memories-demo.png"),
    show_default=True,
    help="Where to write the picture.",
)
@click.option("--seed", default=7, show_default=True, help="The seed of the random path.")
@click.option(
    "--regions",
    type=click.IntRange(min=1, max=100),
    default=5,
    show_default=True,
    help="The number of regions to explore.",
)
@json_option
def demo(picture: Path, seed: int, regions: int, as_json: bool) -> None:
    """Explore a real raster through the four tiers, in less than a minute.

    The raster is Linke turbidity, 2160 x 4320 x 12 values, from the package pvlib. A table
    shows the tiers meanwhile; at the end it prints the results of this run and writes a picture.
    """
    from memories.cli.demo.raster import find_raster
    from memories.cli.demo.report import report
    from memories.cli.demo.session import DemoPlan, run

    outcome = run(DemoPlan(seed=seed, regions=regions), find_raster(), picture.absolute())
    if as_json:
        print_json(outcome.as_json())
    else:
        click.echo("\n".join(report(outcome)))
    if outcome.different:
        raise CliFailure(f"{outcome.different} answers differ from the file: this is a defect")
