"""The operators' commands from their command line: the same options, exit codes as documented, no tracebacks."""

import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import typer.main

from tests.unit.fake_node import FakeNode, serving
from walproxy import cli, handover, member
from walproxy.errors import Refused

NOWHERE = ("--node", "host=/nowhere port=1")
CHANGES = [["member", "add", "d", "--address", "host=/x"], ["member", "remove", "d"]]
CHANGES += [["member", "replace", "c", "d", "--address", "host=/x"]]
COMMANDS = [
    ["transfer"],
    ["seal"],
    ["unseal"],
    ["promote-check", "s"],
    ["status"],
    ["member", "list"],
    *CHANGES,
]


def ends_with(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["walproxy", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    code = ended.value.code
    assert isinstance(code, int)
    return code


def command(path: list[str]) -> typer.core.TyperCommand:
    found: object = typer.main.get_command(cli.app)
    for name in path:
        if isinstance(found, typer.core.TyperGroup) and name in found.commands:
            found = found.commands[name]
    assert isinstance(found, typer.core.TyperCommand)
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_all_take_the_same_options_and_explain_each(path: list[str]) -> None:
    found = command(path)

    options = {option for parameter in found.params for option in parameter.opts}
    assert options >= {"--config", "--node", "--json"}
    assert all(getattr(parameter, "help", None) for parameter in found.params)
    assert "Exit code" in f"{found.help} {found.epilog}"
    # Where it is shown, what stands in brackets would be taken for a style.
    assert "[" not in f"{found.help} {found.epilog}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_nodes_that_do_not_answer_are_told_with_exit_code_2(
    path: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = ends_with(monkeypatch, *path, *NOWHERE)

    said = "".join(capsys.readouterr())
    assert code == 2
    assert "No such file or directory" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("path", [*COMMANDS, ["check", "--primary", "x"]], ids=" ".join)
@pytest.mark.parametrize(
    "group", [(), ("--node", "127.0.0.1:7001"), ("--config", "/nowhere.toml")], ids=["none", "node", "config"]
)
def test_a_group_that_is_not_named_rightly_is_a_usage_error(
    path: list[str],
    group: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ends_with(monkeypatch, *path, *(() if path[0] == "check" else group)) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_address_that_is_none_is_refused_before_any_node_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ends_with(monkeypatch, "member", "add", "d", "--address", "10.0.0.4:7004", *NOWHERE) == 1
    assert "--address: not a libpq connection string" in capsys.readouterr().err


class Answering:
    """An errand that gives one answer."""

    answer: str | Exception = "answer"

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def ask(self, query: str, *, is_repeatable: bool) -> str:
        del query, is_repeatable
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def finish(self, query: str) -> str:
        return await self.ask(query, is_repeatable=True)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (["transfer"], {"proposer": "answer"}),
        (["seal"], {"sealed_lsn": "answer"}),
        (["unseal"], {"open_from_lsn": "answer"}),
        *((path, {"stage": "done", "says": "answer"}) for path in CHANGES),
    ],
)
def test_what_was_done_is_told_to_programs(
    path: list[str],
    shown: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(handover, "Errand", Answering)
    monkeypatch.setattr(member, "Errand", Answering)

    assert ends_with(monkeypatch, *path, *NOWHERE, "--json") == 0
    assert json.loads(capsys.readouterr().out) == shown
    monkeypatch.setattr(Answering, "answer", Refused("a: no"))
    assert ends_with(monkeypatch, *path, *NOWHERE, "--json") == 2
    assert capsys.readouterr().err == "walproxy: a: no\n"


async def test_an_interrupt_ends_a_wait_with_130_and_words(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "candidate")
    async with serving(node):
        running = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "walproxy", "seal", "--node", node.conninfo),
            stderr=asyncio.subprocess.PIPE,
            # Whoever runs us may ignore it.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        assert running.stderr is not None
        first = await running.stderr.readline()
        running.send_signal(signal.SIGINT)
        rest = await running.stderr.read()
        code = await running.wait()

    assert first == b"no proposer answers: a: candidate; waits\n"
    assert (code, rest) == (130, b"interrupted: nothing was begun\n")
