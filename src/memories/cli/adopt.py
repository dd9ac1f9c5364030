"""`memories adopt`: shows what an archive holds, from its URL alone, and continues it."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from memories.cli.exit_codes import DAMAGED, CliFailure
from memories.cli.output import escape, print_json
from memories.cli.store import configured_key, json_option
from memories.foundation.units import format_size

if TYPE_CHECKING:
    from memories.backends.bucket import BucketBackend


@click.command()
@click.argument("url")
@click.argument("store", type=click.Path(path_type=Path), required=False)
@click.option(
    "-o", "--option", "options", multiple=True, metavar="NAME=VALUE",
    help="One of storage_options, such as endpoint, region or profile; may be repeated.",
)  # fmt: skip
@click.option(
    "--takeover", is_flag=True,
    help="Continue it although another store seems to be its writer, which is then refused.",
)  # fmt: skip
@json_option
@click.pass_context
def adopt(
    context: click.Context,
    url: str,
    store: Path | None,
    options: tuple[str, ...],
    takeover: bool,
    as_json: bool,
) -> None:
    """Show what the archive at URL holds; with STORE, make a store there that continues it.

    No file of the machine that wrote the archive is needed. Without STORE nothing is changed.
    Credentials come from the environment, since options are visible in the list of processes.
    Damaged and missing objects are listed, and the exit code is then 4; the rest is readable.
    """
    if takeover and store is None:
        raise click.UsageError("--takeover needs a STORE that continues the archive")
    settings = _settings(options)
    found = _inspect(url, settings)  # First: no store is made for an unreachable archive.
    if store is not None:
        _take_over(url, store, settings, takeover)
    if as_json:
        print_json({**found, "store": None if store is None else str(store)})
    else:
        _print(found)
        if store is not None:
            click.echo(f"{escape(str(store))} continues the archive", err=True)
    context.exit(DAMAGED if found["damaged"] or found["missing"] else 0)


def _settings(options: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for option in options:
        name, mark, value = option.partition("=")
        if not (name and mark):
            raise click.BadParameter(f"{name!r} is not NAME=VALUE", param_hint="--option")
        settings[name] = value
    return settings


def _take_over(url: str, store: Path, settings: dict[str, str], takeover: bool) -> None:
    from memories import MemoryManager

    with MemoryManager(
        storage_path=store,
        glacier_memory_enabled=True,
        glacier_url=url,
        storage_options=settings,
        takeover=takeover,
        migration=False,
    ):
        pass  # Opening the store takes the archive over.


def _inspect(url: str, settings: dict[str, str]) -> dict[str, Any]:
    from memories.backends.bucket import BucketBackend

    if "://" not in url and not (Path(url).expanduser() / "memories-1").is_dir():
        raise CliFailure(f"there is no archive in {url!r}")
    archive = BucketBackend(
        url, storage_options=settings, read_only=True, encryption=configured_key()
    )
    try:
        return _describe(archive)
    finally:
        archive.close()


def _describe(archive: BucketBackend) -> dict[str, Any]:
    from memories.codecs import carries_code

    kinds: Counter[str] = Counter()
    size, latest = 0, 0.0
    for record in archive.records():
        kinds[record.kind] += 1
        size += record.size
        latest = max(latest, record.stored_at)
    usage, holder = archive.usage(), archive.holder()
    return {
        "url": archive.url,
        "keys": usage.keys,
        "bytes": size,
        "stored_bytes": usage.physical,
        "dead_bytes": usage.physical - usage.live,
        "latest": latest or None,
        "kinds": dict(kinds.most_common()),
        "pickled": sum(count for kind, count in kinds.items() if carries_code(kind)),
        "damaged": [one.name for one in archive.damage],
        "missing": archive.missing,
        "writer": None
        if holder is None
        else {"host": holder.host, "pid": holder.pid, "closed": holder.released},
    }


def _print(found: dict[str, Any]) -> None:
    click.echo(f"archive   {escape(found['url'])}")
    click.echo(f"keys      {found['keys']:,}")
    stored, dead = format_size(found["stored_bytes"]), format_size(found["dead_bytes"])
    click.echo(f"size      {format_size(found['bytes'])} in memory, {stored} there ({dead} dead)")
    if found["latest"] is not None:
        moment = datetime.fromtimestamp(found["latest"], UTC)
        click.echo(f"latest    {moment:%Y-%m-%d %H:%M:%S} UTC")
    for kind, count in found["kinds"].items():
        click.echo(f"kind      {count:>12,}  {escape(kind)}")
    writer = found["writer"]
    if writer is not None:
        state = "closed it" if writer["closed"] else "has not closed it"
        click.echo(f"writer    process {writer['pid']} on {escape(writer['host'])}, which {state}")
    for name in found["damaged"]:
        click.echo(f"damaged   {escape(name)}")
    for key in found["missing"]:
        click.echo(f"missing   {escape(key)}")
    if found["pickled"]:
        click.echo(
            f"{found['pickled']:,} of the values are pickles: to read them here, import the key of "
            "the user who stored them (memories key export there, memories key import here)",
            err=True,
        )
