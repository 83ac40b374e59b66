"""The main job in containers, on images made here, wherever a Docker engine answers."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from tools.wait import TooLate, until

ROOT = Path(__file__).parents[2]
BASE, IMAGE = "walproxy-base:bookworm", "walproxy:dev"
NODES = {"a": 7001, "b": 7002, "c": 7003}
PAGESERVER_PORT = 7010
PRIMARY = "host=127.0.0.1 user=postgres dbname=postgres"
SERVER = """
    /usr/lib/postgresql/15/bin/initdb -D /var/lib/postgresql/data -U postgres -A trust --no-locale -E UTF8
    exec /usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/data
"""

GROUP = "from pg_stat_replication where application_name = 'walproxy'"
STREAMING = f"select count(*) {GROUP} and state = 'streaming'"

# Run inside a node's container.
STATUS = """
import psycopg, sys
print(psycopg.connect(sys.argv[1], autocommit=True).execute("SHOW walproxy.status").fetchone()[0])
"""

Start = Callable[[DockerContainer], DockerContainer]


@pytest.fixture(scope="module")
def images() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no Docker here")
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip()[-200:]}")
    # Its helper image would have to come from a registry.
    testcontainers_config.ryuk_disabled = True
    made = subprocess.run(
        [ROOT / "docker/make-image.sh"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if made.returncode != 0 and os.geteuid() != 0:
        pytest.skip(f"the images cannot be made here: {made.stderr.strip()[-200:]}")
    assert made.returncode == 0, made.stderr[-2000:]


@pytest.fixture
def start() -> Iterator[Start]:
    """A function that starts a container; all of them are removed afterwards."""
    with ExitStack() as cleanup:

        def started(container: DockerContainer) -> DockerContainer:
            return cleanup.enter_context(container)

        yield started


def sh(container: DockerContainer, command: str) -> str:
    """What a shell command in a container prints; it must succeed."""
    code, output = container.exec(["bash", "-c", command])
    assert code == 0, f"{command}: exit={code}\n{output.decode()[-2000:]}"
    return str(output.decode())


def sql(container: DockerContainer, query: str) -> str:
    return sh(container, f'psql -h 127.0.0.1 -U postgres -d postgres -XAtc "{query}"').strip()


def program(pod: str, command: str, **environment: object) -> DockerContainer:
    """walproxy or pageserver in the primary's network namespace, configured by its environment alone."""
    container = DockerContainer(IMAGE, network_mode=f"container:{pod}").with_command(f"{command} run")
    prefix = command.upper()
    settings = {"data_dir": "/var/lib/walproxy/data", "primary_conninfo": PRIMARY} | environment
    for key, value in settings.items():
        container.with_env(f"{prefix}_{key.upper()}", value if isinstance(value, str) else json.dumps(value))
    return container


def wait_sql(container: DockerContainer, query: str, expected: str, deadline_s: float = 60) -> None:
    def look() -> bool:
        return sql(container, query) == expected

    until(
        look, what=f"{query} gives {expected}", deadline_s=deadline_s, ignoring=(AssertionError,), pause_s=0.5
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("images")
def test_the_main_job_runs_in_containers(start: Start) -> None:
    primary = start(DockerContainer(BASE, user="postgres").with_command(["bash", "-c", SERVER]))
    pod = str(primary.get_wrapped_container().id)
    wait_sql(primary, "select 1", "1")
    sh(primary, "/usr/lib/postgresql/15/bin/pgbench -h 127.0.0.1 -U postgres -i -q postgres")
    conninfos = {name: f"host=127.0.0.1 port={port} user=postgres" for name, port in NODES.items()}
    nodes = {
        name: start(program(pod, "walproxy", name=name, listen=f"127.0.0.1:{port}", members=conninfos))
        for name, port in NODES.items()
    }
    wait_sql(primary, STREAMING, "1")
    sql(primary, "alter system set synchronous_standby_names = 'ANY 1 (walproxy)'")
    sql(primary, "select pg_reload_conf()")
    wait_sql(primary, f"select sync_state {GROUP}", "quorum")
    listen = f"127.0.0.1:{PAGESERVER_PORT}"
    pageserver = start(program(pod, "pageserver", listen=listen, walproxy=list(conninfos.values())))

    sh(primary, "/usr/lib/postgresql/15/bin/pgbench -h 127.0.0.1 -U postgres -n -c 4 -T 5 postgres")
    killed = nodes[proposer(nodes)]
    killed.get_wrapped_container().kill()
    wait_sql(primary, STREAMING, "1")
    sh(primary, "/usr/lib/postgresql/15/bin/pgbench -h 127.0.0.1 -U postgres -n -c 4 -T 5 postgres")

    ends = f"--primary '{PRIMARY}' --pageserver 'host=127.0.0.1 port={PAGESERVER_PORT}'"
    verify = f"python3 -m pageserver verify {ends}"
    report = json.loads(sh(pageserver, f"{verify} --create-extension --json 2>/dev/null"))
    assert report["differences"] == []
    assert report["pages"] > 1000


def proposer(nodes: dict[str, DockerContainer]) -> str:
    for name, node in nodes.items():
        code, output = node.exec(["python3", "-c", STATUS, f"host=127.0.0.1 port={NODES[name]}"])
        if code == 0 and json.loads(output)["role"] == "proposer":
            return name
    raise TooLate("no node proposes")
