"""Which nodes an operator's command asks, and how its answers look."""

from pathlib import Path

import pytest
from rich.table import Table

from walproxy.errors import ConfigInvalid
from walproxy.options import show, which_group

FILE = """
name = "a"
listen = "127.0.0.1:7001"
data_dir = "/nowhere"
primary_conninfo = "host=127.0.0.1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.toml"
    path.write_text(FILE)
    return path


def test_a_file_names_the_group_and_the_primary(file: Path) -> None:
    nodes, settings = which_group(file, None)

    assert list(nodes) == ["a"]
    assert settings is not None


def test_without_a_file_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    for key, value in (
        ("NAME", "a"),
        ("LISTEN", "127.0.0.1:7001"),
        ("DATA_DIR", "/n"),
        ("PRIMARY_CONNINFO", ""),
    ):
        monkeypatch.setenv(f"WALPROXY_{key}", value)

    assert list(which_group(None, None)[0]) == ["a"]


def test_a_node_is_called_by_its_address_without_the_password() -> None:
    nodes, settings = which_group(None, ["port=1 password=secret host=/x"])

    assert nodes == {"password=*** host=/x port=1": "port=1 password=secret host=/x"}
    assert settings is None


def test_one_way_to_say_it_is_enough(file: Path) -> None:
    with pytest.raises(ConfigInvalid, match="one way"):
        which_group(file, ["host=/x"])
    with pytest.raises(ConfigInvalid, match="--config FILE, or --node CONNINFO"):
        which_group(None, None)
    with pytest.raises(ConfigInvalid, match="--node: not a libpq connection string"):
        which_group(None, ["127.0.0.1:7001"])


def test_text_of_others_is_shown_as_it_is_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", *["a column of some width"] * 6)
    table.add_row("[/bold] [red] :smile:", *["0/3000000"] * 6)

    show(table)

    said = capsys.readouterr().out
    assert "[/bold] [red] :smile:" in said
    assert len(said.splitlines()) == 5
