"""The kinds of faults. One more is a generator with the mark ``@kind``: do harm, yield what it was, undo it.

What it leaves ended or broken, ``Cluster.revive`` starts and mends afterwards.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psycopg

from tests.chaos.cluster import BACK_S, EXIT_POISONED, Broken, Cluster, Member
from tools.wait import TooLate, until
from walproxy.wire.lsn import INVALID_LSN

Fault = Callable[[Cluster, random.Random], Iterator[str]]
Done = Callable[[Cluster, random.Random], AbstractContextManager[str]]

KINDS: dict[str, Done] = {}
# How long a disk may take to be written to under load.
NOTICED_S = 30.0


def kind(name: str) -> Callable[[Fault], Fault]:
    def register(fault: Fault) -> Fault:
        KINDS[name] = contextlib.contextmanager(fault)
        return fault

    return register


def a_node(cluster: Cluster, draw: random.Random) -> Member:
    """The proposer as often as any other; whoever is hit already may be hit again."""
    if draw.random() < 0.5:
        with contextlib.suppress(TooLate):
            return cluster.proposer(deadline_s=2.0)
    return draw.choice(cluster.nodes)


def with_a_sound_disk(cluster: Cluster, draw: random.Random) -> Member:
    """As `a_node`; but nothing more is done to a disk that hangs or fails already."""
    node = a_node(cluster, draw)
    if not node.disk.is_sound:
        node = draw.choice([member for member in cluster.nodes if member.disk.is_sound] or [node])
    node.disk.mend()
    return node


def kill(member: Member) -> None:
    # Who waits for a disk that hangs cannot die.
    member.disk.go_on()
    member.process.kill()


# --- processes --------------------------------------------------------------------------------------------


@kind("kill a node")
def kill_node(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    node = a_node(cluster, draw)
    kill(node)
    yield node.name


@kind("kill all nodes")
def kill_all_nodes(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    for node in draw.sample(cluster.nodes, len(cluster.nodes)):
        kill(node)
    yield "all"


@kind("kill a node as it starts")
def kill_starting_node(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """Again and again, wherever its recovery may be."""
    node = with_a_sound_disk(cluster, draw)
    for _ in range(3):
        kill(node)
        if not node.disk.is_read_only:
            node.process.start()
            time.sleep(draw.uniform(0.3, 2.5))
    cluster.judge_exit(node)
    kill(node)
    yield node.name


@kind("restart the nodes in turn")
def restart_in_turn(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """As for an upgrade: each is asked to end."""
    for node in draw.sample(cluster.nodes, len(cluster.nodes)):
        if node.process.alive and node.disk.is_sound and not node.may_end_with:
            code = node.process.stop(deadline_s=BACK_S)
            if code != 0:
                raise Broken(f"{node.name} ended with {code} when it was asked to end")
            node.process.start()
            time.sleep(draw.uniform(0.0, 2.0))
    yield "all"


@kind("transfer")
def transfer(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """The proposer hands over, or says that it cannot now."""
    to = draw.choice(cluster.nodes)
    said = f"to {to.name}"
    with contextlib.suppress(TooLate):
        try:
            cluster.stack.proposer(deadline_s=2.0).query("select walproxy.transfer(%s)", to.name)
        except psycopg.Error as error:
            said += f": {error}".strip()
    yield said


@kind("stop a node")
def stop_node(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """SIGSTOP: it does nothing, and its connections stay."""
    node = a_node(cluster, draw)
    if node.process.alive:
        node.process.pause()
    yield node.name
    if node.process.alive:
        node.process.resume()


@kind("stop the primary")
def stop_primary(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    primary = cluster.primary.process
    if primary.alive:
        primary.pause()
    yield primary.name
    if primary.alive:
        primary.resume()


@kind("crash the primary")
def crash_primary(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    kill(cluster.primary_member)
    yield cluster.primary.process.name


@kind("kill the pageserver")
def kill_pageserver(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    kill(cluster.page_member)
    yield "pageserver"


# --- links ------------------------------------------------------------------------------------------------


def on_the_line(cluster: Cluster, draw: random.Random) -> Member:
    return cluster.primary_member if draw.random() < 0.25 else a_node(cluster, draw)


@kind("cut a link")
def cut_link(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    member = on_the_line(cluster, draw)
    member.host.cut()
    yield member.name
    member.host.mend()


@kind("slow a link")
def slow_link(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    member = on_the_line(cluster, draw)
    kbit, queue_ms = draw.choice((64, 256, 1000, 4000)), draw.choice((50, 400, 2000))
    member.host.slow(kbit=kbit, queue_ms=queue_ms)
    yield f"{member.name}: {kbit} kbit/s, {queue_ms} ms"
    member.host.mend()


@kind("lose packets")
def lose_packets(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    member = on_the_line(cluster, draw)
    percent = draw.choice((2, 10, 30, 60))
    member.host.lose(percent=percent)
    yield f"{member.name}: {percent} %"
    member.host.mend()


@kind("partition one way")
def partition_one_way(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    deaf = on_the_line(cluster, draw)
    others = [*cluster.nodes, cluster.primary_member]
    mute = draw.choice([member for member in others if member is not deaf])
    deaf.host.be_deaf_to(mute.host)
    yield f"{deaf.name} does not hear {mute.name}"
    deaf.host.mend()


# --- disks ------------------------------------------------------------------------------------------------


@kind("hang a disk")
def hang_disk(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """Whatever it writes or syncs takes until the disk goes on."""
    node = with_a_sound_disk(cluster, draw)
    node.disk.hang()
    yield node.name
    node.disk.go_on()


@kind("fill a node's disk")
def fill_disk(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """It ends with exit code 4 when it wants room for its next segment; what it has stays."""
    node = with_a_sound_disk(cluster, draw)
    node.may_end_with.add(EXIT_POISONED)
    node.disk.fill()
    cluster.burst()
    yield node.name
    node.disk.free()


@kind("fill the pageserver's disk")
def fill_pages(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    member = cluster.page_member
    member.may_end_with.add(EXIT_POISONED)
    member.disk.fill()
    yield "pageserver"
    member.disk.free()


@kind("fail a sync")
def fail_sync(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """The disk fails until the node has noticed, and is started again on the same mount as if nothing was."""
    node = with_a_sound_disk(cluster, draw)
    cluster.burst()
    break_disk(node)
    yield node.name
    await_poisoned(node)
    node.disk.mend()


@kind("fail a sync, then the power")
def fail_sync_then_power(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    """After a failed sync the page cache shows what the disk never got; only the power tells them apart."""
    node = with_a_sound_disk(cluster, draw)
    cluster.burst()
    break_disk(node)
    await_poisoned(node)
    node.disk.mend()
    if not node.disk.is_read_only:
        node.process.start()
        time.sleep(draw.uniform(1.0, 4.0))
    yield node.name
    lose_power(cluster, [node])


@kind("cut a node's power")
def cut_power(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    node = a_node(cluster, draw)
    lose_power(cluster, [node])
    yield node.name


@kind("cut the power of all nodes")
def cut_power_of_all(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    lose_power(cluster, cluster.nodes)
    yield "all"


@kind("cut the primary's power")
def cut_power_of_primary(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    lose_power(cluster, [cluster.primary_member])
    yield cluster.primary.process.name


@kind("cut the pageserver's power")
def cut_power_of_pages(cluster: Cluster, draw: random.Random) -> Iterator[str]:
    del draw
    lose_power(cluster, [cluster.page_member])
    yield "pageserver"


def break_disk(member: Member) -> None:
    member.may_end_with.add(EXIT_POISONED)
    member.disk.fail()


def await_poisoned(member: Member) -> None:
    """A disk that fails ends the node; it must not go on."""
    with contextlib.suppress(TooLate):
        until(lambda: not member.process.alive, what="it ends", deadline_s=NOTICED_S)
    # One that follows nobody writes nothing: it noticed nothing and promised nothing.
    kill(member)


def lose_power(cluster: Cluster, members: list[Member]) -> None:
    """All at once: from one moment on nothing reaches their disks, and what was not synced is gone.

    Raises:
        Broken: a node comes back without what it had called committed.
    """
    promised = cluster.commit_lsns()
    for member in members:
        break_disk(member)
    for member in members:
        kill(member)
        cluster.judge_exit(member)
        member.disk.lose_power()
    for member in members:
        if member in cluster.nodes:
            member.process.start()
    for member in members:
        cluster.look_for_promise(member, promised.get(member.name, INVALID_LSN))


# --- another primary --------------------------------------------------------------------------------------


def promote(cluster: Cluster, draw: random.Random) -> str:
    """End the primary, cleanly or not, and promote the standby once it has all of the group's WAL."""
    how = draw.choice(("sealed", "stopped", "crashed", "crashed with the proposer", "without power"))
    comes_back = draw.random() < 0.4
    ended = cluster.primary_member
    with cluster.promotion(comes_back=comes_back):
        match how:
            case "sealed":
                cluster.stack.proposer(deadline_s=BACK_S).query("select walproxy.seal()")
                kill(ended)
            case "stopped":
                cluster.end_of_load()
                cluster.primary.stop()
            case "crashed":
                kill(ended)
            case "crashed with the proposer":
                # What it alone has of the old timeline must go when it comes back.
                proposer = cluster.proposer()
                kill(ended)
                kill(proposer)
            case _:
                lose_power(cluster, [ended])
    said = f"{ended.name} {how}, {cluster.primary.process.name} promoted"
    return said + (", the old one came back for a while" if comes_back else "")
