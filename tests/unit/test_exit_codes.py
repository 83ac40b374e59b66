"""What both programs end with, as the README's table says."""

import importlib
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import structlog


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """The programs set where logs go; here that is a stream of one test."""
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["walproxy", "pageserver"])
def cli(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"{request.param}.cli")


@pytest.mark.parametrize(
    "arguments", [["run", "--no-such-option"], ["no-such-command"], ["run", "--config"], []], ids=" ".join
)
def test_wrong_usage_ends_with_1(
    cli: ModuleType,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 1
    said = "".join(capsys.readouterr())
    assert any(word in said for word in ("Usage:", "Error:"))


def test_help_ends_with_0(cli: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "run", "--help"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 0


def test_a_bug_ends_with_2_and_is_told(
    cli: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(cli, "load_settings", broken)
    monkeypatch.setattr(sys, "argv", ["program", "run"])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == 2
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_wrong_log_level_is_a_usage_error_that_names_the_right_ones() -> None:
    command = [sys.executable, "-m", "walproxy", "run", "--log-level", "loud"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 1
    assert "warning" in done.stderr
    assert "Traceback" not in done.stderr
