"""From a running primary to a first layer: a base backup taken while the server is written to."""

import threading

import structlog

from pageserver.backup import BackupConnection
from pageserver.backupfiles import parse_backup_label
from pageserver.basestate import CONTROL_FILE, add_state
from pageserver.controlfile import ControlFile, parse_control_file
from pageserver.errors import BootstrapFailed, Poisoned, Refused
from pageserver.layers import base_layer_name, store_state
from pageserver.layout import Layout
from pageserver.manifest import FullPageWrites, LayerEntry, Manifest, replace_manifest, sync_dir
from pageserver.staging import Staging
from walcore._native import BaseWriter
from walproxy.wire.lsn import Lsn, segment_start

logger = structlog.get_logger()

_LABEL = "backup_label"


class Bootstrap:
    """One attempt. Runs in a thread of its own; `staging` may be looked at meanwhile.

    Nothing counts until the manifest is in place: what a cut-off attempt leaves, the next one removes.

    Args:
        system_id: what the walproxy nodes hold WAL of.
        reserved_lsn: they keep WAL from here on.
        stop: ends the attempt.
    """

    def __init__(
        self, layout: Layout, conninfo: str, *, system_id: int, reserved_lsn: Lsn, stop: threading.Event
    ) -> None:
        self.staging = Staging(layout.staging, layout.state)
        self._layout = layout
        self._conninfo = conninfo
        self._system_id = system_id
        self._reserved_lsn = reserved_lsn
        self._stop = stop

    def run(self) -> Manifest:
        """Take the backup, write the layer, put the manifest in place.

        Raises:
            BootstrapFailed: start over.
            Refused: the primary is not the cluster that the walproxy nodes follow.
            Poisoned: the disk refused.
        """
        try:
            return self._run()
        except OSError as error:
            raise Poisoned(
                "cannot write the base backup", path=error.filename, reason=error.strerror or error
            ) from error

    def _run(self) -> Manifest:
        self._layout.clear()
        logger.info("base backup begins", slot_lsn=str(self._reserved_lsn))
        end_lsn = self._receive()
        label = parse_backup_label(self.staging.state(_LABEL).decode(errors="replace"))
        control = parse_control_file(self.staging.state(CONTROL_FILE))
        self._check(label.start_lsn, label.tli, control)
        logger.info(
            "base backup received",
            start_lsn=str(label.start_lsn),
            consistency_lsn=str(end_lsn),
            bytes=self.staging.received_bytes,
            files_skipped=self.staging.skipped_files,
        )
        manifest = self._write_layer(label.start_lsn, end_lsn, control)
        self.staging.remove()
        self.staging.sync_state()
        for directory in (self._layout.layers, self._layout.root):
            sync_dir(directory)
        replace_manifest(self._layout.root, manifest)
        logger.info("bootstrapped", layer_bytes=manifest.layers[0].file_bytes, major=manifest.major)
        return manifest

    def _receive(self) -> Lsn:
        connection = BackupConnection(self._conninfo, stop=self._stop)
        try:
            primary = connection.identify()
            if primary.system_id != self._system_id:
                raise Refused(
                    "the primary is another cluster than the walproxy nodes follow: correct the settings",
                    primary_system_id=primary.system_id,
                    walproxy_system_id=self._system_id,
                )
            return connection.receive(self.staging)
        finally:
            self.staging.close()
            connection.close()

    def _check(self, start_lsn: Lsn, tli: int, control: ControlFile) -> None:
        if (start_lsn, tli) != (
            self.staging.start_lsn,
            self.staging.tli,
        ) or control.system_id != self._system_id:
            raise BootstrapFailed(
                "the base backup contradicts itself",
                label=start_lsn,
                announced=self.staging.start_lsn,
                system_id=control.system_id,
            )
        if segment_start(self._reserved_lsn, control.segment_size) > start_lsn:
            raise BootstrapFailed(
                "the walproxy nodes do not hold wal from the start of the base backup: try again later",
                held_from=self._reserved_lsn,
                needed_from=start_lsn,
            )

    def _write_layer(self, start_lsn: Lsn, consistency_lsn: Lsn, control: ControlFile) -> Manifest:
        name = base_layer_name(start_lsn)
        path = self._layout.layers / name
        writer = BaseWriter(str(path), lsn=start_lsn, system_id=control.system_id)
        pages = 0
        for fork in self.staging.forks():
            if self._stop.is_set():
                raise BootstrapFailed("stopped before the first layer was written")
            pages += writer.add_relation(fork.spc, fork.db, fork.rel, fork.fork, fork.files)
        for kind, files in self.staging.slrus():
            pages += writer.add_slru(kind, files)
        add_state(
            writer,
            self.staging.state_names(),
            self.staging.state,
            tablespaces=self.staging.tablespaces,
            major=control.major,
        )
        state = store_state(self._layout.layers, start_lsn, writer.finish())
        logger.info("first layer written", pages=pages)
        return Manifest(
            generation=1,
            system_id=control.system_id,
            major=control.major,
            catalog_version=control.catalog_version,
            tli=self.staging.tli,
            segment_size=control.segment_size,
            data_checksums=control.data_checksums,
            start_lsn=start_lsn,
            consistency_lsn=consistency_lsn,
            end_lsn=start_lsn,
            layers=(LayerEntry(name, start_lsn, start_lsn, path.stat().st_size, level=0),),
            state=state,
            hint_steps=((start_lsn, control.hint_bits_logged),),
            full_page_writes=FullPageWrites(control.full_page_writes, control.redo_lsn),
        )
