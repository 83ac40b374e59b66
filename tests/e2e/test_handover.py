"""Planned hand-overs of the proposer's place, and of the primary's: docs/quorum.md rules 16 and 25 to 27."""

import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from tests.fix_results import Keep
from tests.fix_stack import NewStack
from tools.ledger import Ledger, longest_stall
from tools.process import Process, free_port
from tools.server import Server
from tools.stack import Program, Stack
from tools.standby import follow, wait_for_replay
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

NOT_YET = (psycopg.Error, OSError)
HANDOVERS = 20


def walproxy(
    stack: Stack, *arguments: str, config: Program | None = None
) -> subprocess.CompletedProcess[str]:
    node = config or stack.nodes[0]
    return subprocess.run(
        [sys.executable, "-m", "walproxy", *arguments, "--config", str(node.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def done(stack: Stack, *arguments: str) -> str:
    ended = walproxy(stack, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def hand_over(stack: Stack) -> None:
    """Ask the proposer itself, without the start of a command line, until another leads.

    A successor whose disk stalls loses to whoever led before: then it is asked again.
    """

    def look() -> bool:
        old = stack.proposer()
        ((new,),) = old.query("SELECT walproxy.transfer(null)")
        return bool(new != old.name)

    until(look, what="another leads", ignoring=(psycopg.errors.ObjectNotInPrerequisiteState,))


@pytest.mark.slow
def test_twenty_hand_overs_under_load_lose_nothing_and_stall_little(new_stack: NewStack, keep: Keep) -> None:
    stack = new_stack().start(pageserver=False)
    ledger = Ledger(stack.primary)
    ledger.create()
    load = ledger.start(clients=4, duration_s=HANDOVERS * 2.5)
    until(lambda: stack.primary.value("select count(*) from ledger") > 20, what="the load runs")

    moments = []
    for _ in range(HANDOVERS):
        moments.append(time.time())
        hand_over(stack)
        stack.wait_for_quorum()
        time.sleep(0.5)
    assert load.wait(deadline_s=180) == 0, load.tail()

    commits = ledger.commits()
    stalls = [longest_stall(commits, from_s=at_s, to_s=at_s + 1.0) for at_s in moments]
    median_ms, longest_ms = statistics.median(stalls) * 1000, max(stalls) * 1000
    print(f"stalls of {HANDOVERS} hand-overs: median {median_ms:.0f} ms, longest {longest_ms:.0f} ms")
    keep(hand_overs=HANDOVERS, commits=len(commits), median_ms=round(median_ms), longest_ms=round(longest_ms))
    assert ledger.missing_from(stack.primary) == set()
    assert len({stack.proposer().name}) == 1
    assert max(stalls) < 10


def test_any_member_can_be_asked_and_the_command_finds_the_proposer(new_stack: NewStack) -> None:
    stack = new_stack().start(pageserver=False)
    old, target = stack.proposer(), stack.acceptors()[0]

    assert done(stack, "transfer", "--to", target.name) == f"{target.name} is the proposer"
    until(lambda: target.status()["role"] == "proposer", what=f"{target.name} leads", ignoring=NOT_YET)
    stack.wait_for_quorum()
    again = walproxy(stack, "transfer", "--to", target.name)
    unknown = walproxy(stack, "transfer", "--to", "nobody")

    assert old.name != target.name
    assert again.returncode == 2
    assert "the proposer already" in again.stderr
    assert unknown.returncode == 1


# --- promotion --------------------------------------------------------------------------------------------


@pytest.fixture
def standby(folder: Path, bindir: Path, watched: list[Process]) -> Iterator[Server]:
    """A server that is nothing yet; a stack's nodes may be told of it before."""
    made = Server(folder / "standby", bindir, name="standby")
    watched.append(made.process)
    yield made
    made.destroy()


def start_with_standby(new_stack: NewStack, standby: Server, http_port: int) -> Stack:
    """A group that takes whichever of the two servers is writable, and a standby of all nodes."""
    stack = new_stack()
    stack.primary.configure(wal_log_hints=True)  # For pg_rewind.
    either = (
        f"host=127.0.0.1,127.0.0.1 port={stack.primary.port},{standby.port} user=postgres dbname=postgres"
        " target_session_attrs=read-write connect_timeout=3"
    )
    for number, node in enumerate(stack.nodes):
        text = node.config.read_text().replace(stack.primary.conninfo(), either)
        node.config.write_text(f'http_listen = "127.0.0.1:{http_port + number}"\n' + text)
    stack.start(pageserver=False)
    stack.primary.query("create table t (id int primary key)")
    stack.primary.base_backup(standby.data_dir)
    follow(standby, f"{stack.conninfo()} application_name=next").start()
    return stack


def http_get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def insert_one(server: Server, number: int) -> None:
    with contextlib.suppress(psycopg.Error):
        server.query("insert into t values (%s)", number)


def promote_check(stack: Stack) -> dict[str, Any]:
    ended = walproxy(stack, "promote-check", "next", "--json")
    shown: dict[str, Any] = json.loads(ended.stdout)
    assert ended.returncode == (0 if shown["has_all"] else 2)
    return shown


@pytest.mark.slow
def test_a_standby_is_promoted_at_the_seal_and_nothing_is_lost(new_stack: NewStack, standby: Server) -> None:
    http_port = free_port()
    stack = start_with_standby(new_stack, standby, http_port)
    old = stack.primary
    for number in range(100):
        old.query("insert into t values (%s)", number)
    ready = until(lambda: [http_get(http_port + n, "/ready") for n in range(3)], what="all answer")
    assert [code for code, _ in ready] == [200, 200, 200], ready

    sealed_at = done(stack, "seal").removeprefix("sealed at ")
    assert done(stack, "seal") == f"sealed at {sealed_at}", "again is the same"

    # Nothing more is acknowledged, whoever leads; the standby gets all of the log.
    assert http_get(http_port, "/ready")[0] == 503
    assert http_get(http_port, "/live")[0] == 200
    waiting = Thread(target=insert_one, args=(old, -1), daemon=True)
    waiting.start()
    waiting.join(3)
    assert waiting.is_alive(), "its commit waits"
    hand_over(stack)
    assert done(stack, "seal") == f"sealed at {sealed_at}", "it outlives its proposer"
    until(lambda: promote_check(stack)["has_all"], what="the standby has all")
    until(
        lambda: any("sealed" in s["upstream"]["error"] for _, s in stack.roles()),
        what="the old primary is refused with what to do",
        ignoring=NOT_YET,
    )

    old.stop(immediate=True)
    standby.query("select pg_promote()")
    standby.query("select pg_reload_conf()")
    until(
        lambda: {status["tli"] for _, status in stack.roles()} == {2},
        what="the group follows the new timeline",
        deadline_s=60,
        ignoring=NOT_YET,
    )
    standby.reload(synchronous_standby_names="ANY 1 (walproxy)")
    until(
        lambda: standby.value("select count(*) from pg_stat_replication where sync_state = 'quorum'"),
        what="the new primary waits for the quorum",
    )
    for number in range(100, 200):
        standby.query("insert into t values (%s)", number)

    kept = {id_ for (id_,) in standby.query("select id from t")}
    assert kept >= set(range(200))
    assert -1 not in kept, "it was never on the quorum"
    switch = standby.query("select pg_read_file('pg_wal/00000002.history')")[0][0].split()[1]
    assert parse_lsn(switch) == parse_lsn(sealed_at)
    assert all(status["sealed_lsn"] is None for _, status in stack.roles())
    until(lambda: http_get(http_port, "/ready")[0] == 200, what="ready again")

    # The old one comes back: it is not taken, and told what to do.
    standby.stop(immediate=True)
    old.start()
    until(
        lambda: any("timeline that was left" in s["upstream"]["error"] for _, s in stack.roles()),
        what="the deposed primary is refused",
        deadline_s=60,
        ignoring=NOT_YET,
    )
    old.stop(immediate=True)
    standby.start()
    until(
        lambda: standby.value("select count(*) from pg_stat_replication where sync_state = 'quorum'"),
        what="the group goes on with the new primary",
        deadline_s=60,
    )
    standby.query("insert into t values (200)")


@pytest.mark.pg(18)
def test_a_seal_survives_the_end_of_all_nodes_and_can_be_taken_back(new_stack: NewStack) -> None:
    stack = new_stack().start(pageserver=False)
    stack.primary.query("create table t (id int)")
    sealed_at = done(stack, "seal")

    for node in stack.nodes:
        node.kill()
    for node in stack.nodes:
        node.start()
    for node in stack.nodes:
        node.ready()
    until(
        lambda: [s["sealed_lsn"] for _, s in stack.roles()] == [sealed_at.removeprefix("sealed at ")] * 3,
        what="all know of the seal",
        ignoring=NOT_YET,
    )
    status = walproxy(stack, "status")
    assert status.returncode == 2
    assert "sealed" in status.stdout

    until(lambda: walproxy(stack, "unseal").returncode == 0, what="the log is open")
    stack.wait_for_quorum()
    stack.primary.query("insert into t values (1)")


@pytest.mark.pg(18)
def test_a_standby_that_lags_is_told_what_it_lacks(new_stack: NewStack, standby: Server) -> None:
    stack = start_with_standby(new_stack, standby, free_port())
    stack.primary.query("insert into t values (1)")
    wait_for_replay(standby, str(stack.primary.value("select pg_current_wal_flush_lsn()::text")))
    until(lambda: promote_check(stack)["has_all"], what="it has all")
    standby.stop()
    stack.primary.query("insert into t values (2)")
    done(stack, "seal")

    assert "no consumer" in promote_check(stack)["lacking"]
    standby.start()
    shown = until(lambda: (found := promote_check(stack))["has_all"] and found, what="it has caught up")

    assert shown["is_sealed"]
    assert shown["flush_lsn"] == shown["end_lsn"]
