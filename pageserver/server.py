"""The running program: listener, bootstrap, ingest; started in order and ended together."""

import asyncio
import signal
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NoReturn

import structlog

from pageserver import __version__, ingest, nodes, status
from pageserver.bootstrap import Bootstrap
from pageserver.config import Settings
from pageserver.errors import BootstrapFailed, ConfigInvalid, PageserverError, Poisoned, StreamBroken
from pageserver.layout import Layout, open_layout
from pageserver.manifest import Manifest, read_manifest
from pageserver.service import PageService
from pageserver.timeline import LayerLimits, Timeline
from walproxy.wire.aio import Address, Connection, Handler, parse_address, serve
from walproxy.wire.errors import FEATURE_NOT_SUPPORTED, UNDEFINED_OBJECT, SqlError
from walproxy.wire.replication import Command

logger = structlog.get_logger()

_READ_THREADS: Final = 4
_RETRY_S: Final = 2.0
_DEFAULT_VERSION: Final = "18.0"
"""What clients are told before the primary's major is known."""


class PageServer(Handler):
    """One process: one data directory, one listener, one timeline."""

    fatal: tuple[type[BaseException], ...] = (Poisoned,)

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        self._readers = ThreadPoolExecutor(_READ_THREADS, thread_name_prefix="read")
        self._service = PageService(self._readers, lsn_wait_timeout_s=settings.lsn_wait_timeout_s)
        self.functions = self._service.functions()
        self._receiver: ingest.WalReceiver | None = None
        self._attempt: Bootstrap | None = None
        self._bootstrap_error: str | None = None
        self._is_recovering = False

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            PageserverError: what ended it; `exit_code` says how.
        """
        manifest = read_manifest(self._layout.root)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow(manifest))

    def parameters(self) -> Mapping[str, str]:
        timeline = self._service.timeline
        return {"server_version": _DEFAULT_VERSION if timeline is None else f"{timeline.manifest.major}.0"}

    async def show(self, name: str) -> str:
        match name:
            case status.SHOW_NAME:
                return self._status().to_json()
            case "server_version":
                return self.parameters()[name]
            case "pageserver.version":
                return __version__
            case _:
                hint = f"Try SHOW {status.SHOW_NAME}."
                raise SqlError(UNDEFINED_OBJECT, f'unrecognized configuration parameter "{name}"', hint=hint)

    async def replicate(self, connection: Connection, command: Command) -> None:
        del connection, command
        hint = "Stream WAL from a walproxy node."
        raise SqlError(FEATURE_NOT_SUPPORTED, "the page server serves pages, not wal", hint=hint)

    async def closed(self, connection: Connection) -> None:
        del connection

    def _status(self) -> status.Status:
        timeline, receiver = self._service.timeline, self._receiver
        if timeline is None or receiver is None:
            return status.before_pages(
                self._attempt, self._bootstrap_error, is_recovering=self._is_recovering
            )
        return status.of_timeline(timeline, receiver)

    async def _listen(self) -> None:
        def started(address: Address) -> None:
            logger.info("listening", address=str(address))

        try:
            await serve(parse_address(self._settings.listen), self, started=started)
        except OSError as error:
            raise ConfigInvalid(
                "cannot listen", listen=self._settings.listen, reason=error.strerror
            ) from error

    async def _follow(self, manifest: Manifest | None) -> None:
        settings = self._settings
        if manifest is None:
            manifest = await self._bootstrap()
        self._is_recovering = True
        limits = LayerLimits(settings.layer_wal_bytes_max, settings.layer_open_bytes_max)
        timeline = await asyncio.to_thread(Timeline.open, self._layout, manifest, limits)
        self._receiver = ingest.WalReceiver(timeline, settings.walproxy, slot_name=settings.slot_name)
        self._service.begin(timeline)
        try:
            await self._receiver.run()
        finally:
            timeline.close()

    async def _bootstrap(self) -> Manifest:
        """Try until there is a first layer."""
        while True:
            for conninfo in self._settings.walproxy:
                try:
                    return await self._bootstrap_with(conninfo)
                except (BootstrapFailed, StreamBroken) as error:
                    if str(error) != self._bootstrap_error:
                        logger.warning("bootstrap did not succeed", reason=str(error))
                    self._bootstrap_error = str(error)
            await asyncio.sleep(_RETRY_S)

    async def _bootstrap_with(self, conninfo: str) -> Manifest:
        """One attempt, with one node that holds the WAL from before the base backup on."""
        connection = await nodes.connect(conninfo)
        try:
            identity = await nodes.identify(connection)
            reserved_lsn = await nodes.ensure_slot(connection, self._settings.slot_name)
        finally:
            connection.close()
        stop = threading.Event()
        self._attempt = Bootstrap(
            self._layout,
            self._settings.primary_conninfo,
            system_id=identity.system_id,
            reserved_lsn=reserved_lsn,
            stop=stop,
        )
        try:
            return await asyncio.to_thread(self._attempt.run)
        finally:
            stop.set()


async def run(settings: Settings) -> None:
    """Run a pageserver until SIGTERM or SIGINT.

    Raises:
        PageserverError: what ended it otherwise.
    """
    layout = open_layout(settings.data_dir)
    server = asyncio.create_task(PageServer(settings, layout).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.cancel)
    try:
        await server
    except asyncio.CancelledError:
        logger.info("stopped")
    except ExceptionGroup as failed:
        _raise_first(failed)


def _raise_first(failed: BaseExceptionGroup[BaseException]) -> NoReturn:
    """What ended the program: the first error of ours, or else the bug."""
    ours = failed.subgroup(PageserverError)
    error: BaseException = failed if ours is None else ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error
