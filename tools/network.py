"""Hosts with a network of their own: links of real packets, to be cut, slowed, thinned out and made one-way.

Each host is a network namespace with two links. Over ``data0`` the programs of a test talk to each other, and
every fault is done to it; over ``ctrl0`` whoever runs the test reaches them, whatever happens to the other. A
program that binds loopback only is reached through its host's addresses: the kernel translates them.

Wants root, iproute2 and nftables, and the private namespaces that ``enter_private`` makes: all that is left
over goes with them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.process import Place

NAMED = Path("/run/netns")
_PREFIX = "10.77"
_CONTROL = "10.78"
_INSIDE = "TOOLS_NETWORK_INSIDE"
_PROGRAMS = ("unshare", "nsenter", "setpriv", "ip", "tc", "nft", "sysctl", "fsfreeze", "losetup")


def missing() -> str:
    """Why there can be no such network on this machine; empty if there can."""
    if os.geteuid() != 0:
        return "wants root, for network namespaces and loop devices"
    absent = [name for name in _PROGRAMS if shutil.which(name) is None]
    return f"wants {', '.join(absent)} (Debian: util-linux iproute2 nftables procps)" if absent else ""


def enter_private() -> None:
    """Go on as this same command in network, mount and process namespaces of our own.

    Whatever is started, mounted or configured in them is gone when the command ends, however it ends.
    """
    if os.environ.get(_INSIDE):
        return
    spaces = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    # The first process of a process namespace has to collect the orphans: a shell does, we do not.
    shell = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
    command = ["unshare", *spaces, *shell, *sys.orig_argv]
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    os.execvp(command[0], command)


class Host:
    """One network namespace. Made by ``Network.host``.

    Args:
        number: the last part of its addresses, from 2 on.
    """

    def __init__(self, network: "Network", name: str, number: int) -> None:
        self.name = name
        self.address = f"{_PREFIX}.0.{number}"
        self.control_address = f"{_CONTROL}.0.{number}"
        self._network = network
        run("ip", "netns", "add", name)
        self._link("data0", f"{name}-d", "data", self.address)
        self._link("ctrl0", f"{name}-c", "ctrl", self.control_address)
        self.run("ip", "link", "set", "lo", "up")
        self.run("sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
        self._rules(
            "table ip host {",
            " chain arriving { type nat hook prerouting priority -100; }",
            " chain refused { type filter hook input priority 0; }",
            "}",
        )

    def _link(self, inside: str, outside: str, bridge: str, address: str) -> None:
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
        run("ip", "link", "set", outside, "master", bridge, "up")
        self.run("ip", "addr", "add", f"{address}/16", "dev", inside)
        self.run("ip", "link", "set", inside, "up")

    def run(self, *command: str) -> str:
        """Run a command in this network and give what it said."""
        return run(*self.enter, *command)

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", f"--net={NAMED / self.name}", "--")

    def place(self, *, data_dir: Path, peer_address: str = "") -> Place:
        """For a program that runs here; ``peer_address`` if the others use another one than the host's."""
        return Place(self.control_address, peer_address or self.address, self.enter, data_dir)

    def forward_to_loopback(self, port: int) -> None:
        """Let what is sent to our addresses reach a program that listens at 127.0.0.1."""
        self._rules(f"add rule ip host arriving tcp dport {port} dnat to 127.0.0.1:{port}")

    def _rules(self, *lines: str) -> None:
        text = "\n".join(lines) + "\n"
        subprocess.run(
            [*self.enter, "nft", "-f", "-"], input=text, text=True, check=True, capture_output=True
        )

    # Faults, of what the programs say to each other only.

    def cut(self) -> None:
        """No packet in or out."""
        self.run("ip", "link", "set", "data0", "down")

    def slow(self, *, kbit: int, queue_ms: int) -> None:
        """What leaves goes at ``kbit``/s, and waits ``queue_ms`` at most: what comes too fast is dropped."""
        shape = ("rate", f"{kbit}kbit", "burst", "16kb", "latency", f"{queue_ms}ms")
        self.run("tc", "qdisc", "replace", "dev", "data0", "root", "tbf", *shape)

    def lose(self, *, percent: int) -> None:
        """So many of the packets that arrive are lost, drawn by the kernel."""
        self._rules(
            f'add rule ip host refused iifname "data0" numgen random mod 100 < {percent} counter drop'
        )

    def be_deaf_to(self, other: "Host") -> None:
        """Nothing from ``other`` arrives any more; it still hears us. TCP misses its acknowledgements."""
        self._rules(f'add rule ip host refused iifname "data0" ip saddr {other.address} counter drop')

    def mend(self) -> None:
        """End every fault; may be called when there is none."""
        self._rules("flush chain ip host refused")
        self.run("ip", "link", "set", "data0", "up")
        if "tbf" in self.run("tc", "qdisc", "show", "dev", "data0"):
            self.run("tc", "qdisc", "del", "dev", "data0", "root")

    # An address that moves from host to host.

    def take_address(self, address: str) -> None:
        self.run("ip", "addr", "replace", f"{address}/16", "dev", "data0")
        for host in self._network.hosts:
            host.run("ip", "neigh", "flush", "dev", "data0")

    def drop_address(self, address: str) -> None:
        if address in self.run("ip", "addr", "show", "dev", "data0"):
            self.run("ip", "addr", "del", f"{address}/16", "dev", "data0")


class Network:
    """All hosts of a test. Call ``enter_private`` before."""

    def __init__(self) -> None:
        assert os.environ.get(_INSIDE), "only in namespaces of our own"
        NAMED.mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "none", str(NAMED))
        run("ip", "link", "set", "lo", "up")
        for bridge in ("data", "ctrl"):
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "link", "set", bridge, "up")
        run("ip", "addr", "add", f"{_CONTROL}.0.1/16", "dev", "ctrl")
        self.hosts: list[Host] = []

    def host(self, name: str) -> Host:
        """A new host. Its name is part of those of its links: at most ten letters."""
        made = Host(self, name, len(self.hosts) + 2)
        self.hosts.append(made)
        return made

    def floating_address(self) -> str:
        """An address that no host has of its own."""
        return f"{_PREFIX}.1.1"

    def mend(self) -> None:
        for host in self.hosts:
            host.mend()

    def broken(self) -> Iterator[str]:
        """Names of hosts whose link is down."""
        for host in self.hosts:
            if "state DOWN" in host.run("ip", "link", "show", "data0"):
                yield host.name


def run(*command: str) -> str:
    """Run a command that must succeed, and give what it said."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit={done.returncode} {done.stderr.strip()}"
    return done.stdout
