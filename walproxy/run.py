"""`walproxy run`: one process, from its settings to its exit code."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import structlog

from walproxy.config import Settings
from walproxy.errors import ConfigInvalid, WalproxyError
from walproxy.health import serve_health
from walproxy.lane import LaneSelector
from walproxy.node import Node
from walproxy.server import serve_node
from walproxy.store.control import ControlFile
from walproxy.store.wal import SegmentStore
from walproxy.upstream import PrimaryConnection
from walproxy.wire.aio import parse_address

_log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Run a node until SIGTERM or SIGINT. Raises as `serve`."""
    selector = LaneSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(serve(settings, selector))


async def serve(settings: Settings, selector: LaneSelector | None = None) -> None:
    """Run a node until SIGTERM or SIGINT.

    Args:
        settings: as loaded.
        selector: of the running loop; without it all is done in Python.

    Raises:
        WalproxyError: what ended it otherwise; its class knows the exit code.
    """
    with _only_one(settings.data_dir):
        control = ControlFile(settings.data_dir)
        store = SegmentStore(settings.data_dir, size_bytes_max=settings.max_wal_size_bytes)
        node = Node(
            settings,
            control=control,
            store=store,
            make_upstream=lambda: PrimaryConnection(
                settings.primary_conninfo,
                slot_name=settings.slot_name,
                application_name=settings.application_name,
            ),
            selector=selector,
        )
        _log.info("node starts", name=settings.name, listen=settings.listen, data_dir=str(settings.data_dir))
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [
                    tasks.create_task(node.run()),
                    tasks.create_task(_serve(settings, node)),
                ]
                if settings.http_listen is not None:
                    parts.append(tasks.create_task(_serve_health(settings, settings.http_listen, node)))
                loop = asyncio.get_running_loop()
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, _stop, parts)
        except* WalproxyError as errors:
            # The first one is why the others ended too.
            raise _first(errors) from None
        finally:
            store.close()
        _log.info("node stopped", name=settings.name)


async def _serve(settings: Settings, node: Node) -> None:
    try:
        await serve_node(parse_address(settings.listen), node, data_dir=settings.data_dir)
    except OSError as error:
        raise ConfigInvalid(
            "listen: cannot listen there", listen=settings.listen, reason=error.strerror
        ) from error


async def _serve_health(settings: Settings, listen: str, node: Node) -> None:
    try:
        await serve_health(parse_address(listen), node, settings.members)
    except OSError as error:
        raise ConfigInvalid(
            "http_listen: cannot listen there", http_listen=listen, reason=error.strerror
        ) from error


def _stop(parts: list[asyncio.Task[None]]) -> None:
    for part in parts:
        part.cancel()


def _first(errors: BaseExceptionGroup[WalproxyError]) -> WalproxyError:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, WalproxyError)
    return error


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Keep a second process off the same data."""
    data_dir.mkdir(parents=True, exist_ok=True)
    fd = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigInvalid("data_dir: another process uses it", data_dir=data_dir) from None
        yield
    finally:
        os.close(fd)
