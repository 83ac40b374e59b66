"""Records WAL of stock servers: ``python -m tools.record_wal build/fuzz/wal``.

Makes ``wal/<major>/<segment>`` of the mixed workload, small, with an image of every page that a record changes
already is left alone; one that cannot be had is left out, with the reason.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from tools import postgres
from tools.server import Server, Setting

MIXED = Path(__file__).parent.parent / "tests" / "workloads" / "mixed.sh"
TRANSACTIONS = 40  # Of each of four clients.
SETTINGS: dict[str, Setting] = {
    "wal_level": "logical",
    "track_commit_timestamp": True,
    "wal_keep_size": "4GB",
    "fsync": False,
    "autovacuum": False,
}


def record(major: int, target: Path) -> None:
    """Run the workload on a server of ``major`` and copy its WAL into ``target``.

    Raises:
        PostgresMissing: there are no programs of that major.
    """
    bindir = postgres.bindir(major)
    folder = Path(tempfile.mkdtemp(prefix="walproxy-", dir="/tmp"))
    folder.chmod(0o755)
    server = Server(folder, bindir)
    try:
        server.initdb().configure(**SETTINGS).start()
        scale = {"ROUNDS": "1", "TX": str(TRANSACTIONS)}
        subprocess.run(["bash", MIXED], env=server.environment | scale, check=True, stdout=subprocess.DEVNULL)
        for method in ("pglz", "lz4", "zstd"):
            if method == "pglz" or postgres.has_feature(bindir, method):
                server.reload(wal_compression=method)
                server.query("checkpoint")
                server.query("update t_btree set v = v || 'x' where k % 50 = 0")
        server.stop()
        partial = target.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for segment in sorted((server.data_dir / "pg_wal").glob("0000000?????????????????")):
            shutil.copyfile(segment, partial / segment.name)
        partial.rename(target)
    finally:
        server.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--majors", default="15,16,17,18")
    arguments = parser.parse_args()
    for major in map(int, arguments.majors.split(",")):
        target = arguments.target / str(major)
        if target.is_dir():
            continue
        try:
            record(major, target)
        except postgres.PostgresMissing as error:
            print(f"PostgreSQL {major} left out: {error}")


if __name__ == "__main__":
    main()
