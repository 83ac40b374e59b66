"""How long after the primary a standby has replayed a position, taken again and again in the background."""

import contextlib
import threading
import time
from typing import Self

import psycopg

from tools.server import Server

PERIOD_S = 0.5
POLL_S = 0.002


class LagSampler:
    """A thread that asks the primary for its position and waits for the standby to have replayed it."""

    def __init__(self, primary: Server, standby: Server) -> None:
        self._primary = primary
        self._standby = standby
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standby-lag", daemon=True)
        self.lags_s: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        # A server that is gone ends the sampling; whoever stopped it says so.
        with (
            contextlib.suppress(psycopg.Error),
            self._primary.connect() as primary,
            self._standby.connect() as standby,
        ):
            while not self._stop.wait(PERIOD_S):
                row = primary.execute("select pg_current_wal_flush_lsn()::text").fetchone()
                begin_s = time.monotonic()
                while row and not self._stop.is_set():
                    reached = standby.execute("select pg_last_wal_replay_lsn() >= %s::pg_lsn", row).fetchone()
                    if reached and reached[0]:
                        self.lags_s.append(time.monotonic() - begin_s)
                        break
                    time.sleep(POLL_S)
