"""A node's settings: where they come from, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from walproxy.config import load_settings
from walproxy.errors import ConfigInvalid

GOOD = {
    "name": '"a"',
    "listen": '"127.0.0.1:7001"',
    "data_dir": '"data"',
    "primary_conninfo": '"host=db password=secret"',
    "members": '{a = "port=7001", b = "port=7002"}',
}


def write(folder: Path, **changes: str | None) -> Path:
    lines = [f"{key} = {value}" for key, value in (GOOD | changes).items() if value is not None]
    file = folder / "node.toml"
    file.write_text("\n".join(lines))
    return file


def test_a_file_gives_the_settings_and_the_rest_has_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path))

    assert settings.members == {"a": "port=7001", "b": "port=7002"}
    assert (settings.slot_name, settings.application_name) == ("walproxy", "walproxy")


def test_the_environment_stands_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALPROXY_SLOT_NAME", "other")
    monkeypatch.setenv("WALPROXY_MEMBERS", json.dumps({"a": "port=1"}))

    settings = load_settings(write(tmp_path))

    assert settings.slot_name == "other"
    assert settings.members == {"a": "port=1"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"listen": '"0.0.0.0:7001"'}, "listen: .*no authentication"),
        ({"listen": '"10.0.0.1:7001"'}, "listen: .*no authentication"),
        ({"listen": '"7001"'}, "listen: not an address"),
        ({"name": '"x"'}, "members: does not name this node, x"),
        ({"name": '"a b"'}, "name: "),
        ({"members": '{a = "nonsense"}'}, "members.a: not a libpq connection string"),
        ({"primary_conninfo": None}, "primary_conninfo: Field required"),
        ({"slot_name": '"No"'}, "slot_name: "),
        ({"max_wal_size_bytes": "1"}, "max_wal_size_bytes: "),
        ({"heartbeat_interval_s": "0.6"}, "heartbeat_interval_s: must be at most half"),
        ({"no_such_key": "1"}, "no_such_key: "),
        ({"name": "]["}, "not toml"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = write(tmp_path, **changes)

    with pytest.raises(ConfigInvalid, match=said) as raised:
        load_settings(file)

    assert raised.value.exit_code == 1


def test_a_unix_socket_is_a_place_to_listen(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, listen='"unix:/run/x/.s.PGSQL.7001"')).listen.startswith("unix:")


def walproxy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "walproxy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_print_config_shows_no_password(tmp_path: Path) -> None:
    done = walproxy("run", "--config", write(tmp_path), "--print-config")

    shown = json.loads(done.stdout)
    assert shown["name"] == "a"
    assert "secret" not in done.stdout
    assert "***" in shown["primary_conninfo"]


def test_a_wrong_configuration_ends_with_one_line_and_exit_code_1(tmp_path: Path) -> None:
    done = walproxy("run", "--config", write(tmp_path, listen='"0.0.0.0:7001"'))

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("walproxy: configuration: listen: ")


def test_health_is_served_on_loopback_and_unix_sockets_only(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path)).http_listen is None
    assert load_settings(write(tmp_path, http_listen='"unix:/run/w/http"')).http_listen == "unix:/run/w/http"
    with pytest.raises(ConfigInvalid, match=r"http_listen.*loopback"):
        load_settings(write(tmp_path, http_listen='"0.0.0.0:7080"'))
