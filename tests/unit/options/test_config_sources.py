"""Where an option comes from: the nearest source wins, and a name that means nothing is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memories import DistributedMemoryManager, MemoryManager, MigrationSettings
from memories.errors import InvalidOptionError
from memories.model.tiers import TierName
from memories.options.config_sources import read_config
from memories.options.configured_constructor import effective_options

KNOWN = {"hot_memory_size", "warm_memory_size", "compression", "storage_path", "write_through"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of a project in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def capacity(manager: MemoryManager, tier: TierName) -> int:
    """Return the configured bytes of a tier."""
    return manager.stats().tiers[tier].configured_bytes


def test_arguments_win_over_environment_over_project_over_user_over_defaults(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest source knows best what this run needs."""
    user = Path(os.environ["XDG_CONFIG_HOME"], "memories", "config.toml")
    user.parent.mkdir(parents=True, exist_ok=True)

    def warm() -> int:
        with MemoryManager(0.001) as manager:
            return capacity(manager, TierName.WARM)

    assert 32 * 10**9 == warm()
    try:
        user.write_text("warm_memory_size = '1MB'\n")
        assert 10**6 == warm()
        (project / "memories.toml").write_text("warm_memory_size = '2MB'\n")
        assert 2 * 10**6 == warm()
        monkeypatch.setenv("MEMORIES_WARM_MEMORY_SIZE", "3MB")
        assert 3 * 10**6 == warm()
        with MemoryManager(0.001, 32) as manager:
            assert 32 * 10**9 == capacity(manager, TierName.WARM)
    finally:
        user.unlink()


def test_a_bare_number_in_the_environment_is_gigabytes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`8` means the same there as in the program."""
    monkeypatch.setenv("MEMORIES_COLD_MEMORY_SIZE", "0.5")
    monkeypatch.setenv("MEMORIES_WRITE_THROUGH", "true")
    with MemoryManager() as manager:
        assert 500_000_000 == capacity(manager, TierName.COLD)


def test_the_project_file_is_found_from_below_and_paths_are_relative_to_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where in the project a program is started must not decide where its data go."""
    text = '[tool.memories]\nstorage_path = "data/store"\nhot_memory_size = 0.5\n'
    (project / "pyproject.toml").write_text(text)
    (project / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(project / "deep" / "er")
    with MemoryManager() as manager:
        manager.store("a", 1, tier="cold")
    assert (project / "data" / "store" / "cold").is_dir()


def test_a_project_that_says_nothing_of_us_is_passed_by(project: Path) -> None:
    """The settings of the workspace above then hold, and a broken file is not our business."""
    (project / "memories.toml").write_text("hot_memory_size = 1\n")
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("this is [not TOML")
    found = read_config(KNOWN, environment={}, directory=inner, user_directory=project / "none")
    assert (1, str(project / "memories.toml")) == found["hot_memory_size"]


def test_tables_are_joined_item_by_item(project: Path) -> None:
    """One variable changes one tier's compression and leaves the other's alone."""
    (project / "memories.toml").write_text('[compression]\ncold = "none"\nglacier = "high"\n')
    variables = {"MEMORIES_COMPRESSION__COLD": "fast"}
    found = read_config(KNOWN, environment=variables, user_directory=project / "none")
    assert {"cold": "fast", "glacier": "high"} == found["compression"].value
    assert "MEMORIES_COMPRESSION__COLD" in found["compression"].origin


@pytest.mark.parametrize(
    ("variables", "text", "words"),
    [
        ({"MEMORIES_WARM_MEMORY_SIZ": "1"}, "", "did you mean 'warm_memory_size'"),
        ({"MEMORIES_HOT_MEMORY_SIZE__X": "1"}, "", "not a table"),
        ({}, "hot_memory = 1", "did you mean 'hot_memory_size'"),
        ({}, "trusted_keys = ['x']", "only an argument"),
        ({"MEMORIES_STORAGE_OPTIONS": "{}"}, "", "only an argument"),
        ({}, "= 1", "is not TOML"),
    ],
)
def test_what_means_nothing_is_refused_and_named(
    project: Path, variables: dict[str, str], text: str, words: str
) -> None:
    """A setting that is misspelt and ignored is found out when the disk is full."""
    (project / "memories.toml").write_text(text)
    with pytest.raises(InvalidOptionError, match=words):
        read_config(KNOWN, environment=variables, user_directory=project / "none")


def test_the_key_file_is_a_variable_but_no_option(project: Path) -> None:
    """It was there before, and says where signing keys lie."""
    assert {} == read_config(
        KNOWN, environment={"MEMORIES_KEY_FILE": "x"}, user_directory=project / "none"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_not_read(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a directory that all may write to, it could send this user's data anywhere."""
    path = project / "memories.toml"
    path.write_text('glacier_url = "s3://theirs"')
    os.chown(path, 12345, 12345)
    assert {} == read_config(KNOWN, environment={}, user_directory=project / "none")
    assert "belongs to another user" in caplog.text


def test_migration_is_a_table_with_names_of_its_own(project: Path) -> None:
    """It becomes the settings that the argument takes, or false."""
    path = project / "memories.toml"
    path.write_text("[migration]\nhigh_watermark = 0.5\nlow_watermark = 0.4\n")
    options = {option.name: option for option in effective_options(MemoryManager.__init__)}
    assert MigrationSettings(high_watermark=0.5, low_watermark=0.4) == options["migration"].value
    path.write_text("[migration]\nhigh_watermrk = 0.5\n")
    with pytest.raises(InvalidOptionError, match="high_watermark"):
        MemoryManager()


def test_every_option_has_an_origin(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And secrets are not among them."""
    monkeypatch.setenv("MEMORIES_DURABILITY", "full")
    options = {option.name: option for option in effective_options(MemoryManager.__init__)}
    assert ("full", "MEMORIES_DURABILITY") == options["durability"][1:]
    assert (8, "default") == options["hot_memory_size"][1:]
    assert not {"storage_options", "trusted_keys"} & set(options)


def test_a_misspelt_argument_names_the_class_and_the_nearest_option() -> None:
    """An option of the base class is suggested for a derived one, too."""
    with pytest.raises(TypeError, match=r"^MemoryManager\(\) got .*did you mean 'hot_memory_size'"):
        MemoryManager(hot_memory_siz=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^DistributedMemoryManager\(\) got .*'near_cache'"):
        DistributedMemoryManager(nodes=["127.0.0.1:1"], near_cach=False)
    with pytest.raises(TypeError, match=r"^MemoryManager\(\): multiple values"):
        MemoryManager(1, hot_memory_size=1)  # type: ignore[misc]
