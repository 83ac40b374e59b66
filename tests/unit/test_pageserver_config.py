"""Settings of the pageserver."""

from pathlib import Path

import pytest

from pageserver.config import load_settings
from pageserver.errors import ConfigInvalid

TEXT = """
listen = "127.0.0.1:7100"
data_dir = "/var/lib/pageserver"
walproxy = ["host=127.0.0.1 port=7001", "host=127.0.0.1 port=7002"]
primary_conninfo = "host=127.0.0.1 port=5432 password=secret"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "pageserver.toml"
    path.write_text(text)
    return path


def test_the_file_is_read_and_the_rest_has_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, TEXT))

    assert settings.walproxy == ("host=127.0.0.1 port=7001", "host=127.0.0.1 port=7002")
    assert settings.slot_name == "pageserver"


def test_the_environment_stands_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGESERVER_LISTEN", "127.0.0.1:7200")
    monkeypatch.setenv("PAGESERVER_WALPROXY", '["port=9"]')

    settings = load_settings(write(tmp_path, TEXT))

    assert (settings.listen, settings.walproxy) == ("127.0.0.1:7200", ("port=9",))


def test_no_password_is_shown(tmp_path: Path) -> None:
    shown = load_settings(write(tmp_path, TEXT)).printable()

    assert "secret" not in str(shown)
    assert "password=***" in shown["primary_conninfo"]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("127.0.0.1:7100", "0.0.0.0:7100", "listen: .*loopback"),
        ("127.0.0.1:7100", "nowhere", "listen: "),
        ("port=5432 password", "port:5432 password", "primary_conninfo: not a libpq"),
        ('["host=127.0.0.1 port=7001", "host=127.0.0.1 port=7002"]', "[]", "walproxy: "),
        ("listen", "lisen", "lisen: "),
        ("listen =", "listen", "not toml"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in TEXT

    with pytest.raises(ConfigInvalid, match=reason):
        load_settings(write(tmp_path, TEXT.replace(old, new)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"none\.toml"):
        load_settings(tmp_path / "none.toml")
