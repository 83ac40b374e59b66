"""A base backup taken apart into files."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from pageserver.errors import BootstrapFailed
from pageserver.staging import Staging
from walcore._native import crc32c
from walproxy.wire.lsn import Lsn

PAGE = 8192
FILES = {
    "backup_label": b"START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n",
    "base/5/20": b"b" * PAGE,
    "base/5/16384": b"a" * 2 * PAGE,
    "base/5/16384_vm": b"v" * PAGE,
    "base/5/16384_fsm": b"f" * PAGE,
    "pg_xact/0001": b"1" * PAGE,
    "pg_xact/0000": b"0" * PAGE,
    "postgresql.conf": b"",
    "global/pg_control": b"c" * PAGE,
}
SPACE = {"PG_18_202506291/5/16500": b"t" * PAGE}


def archive(*members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (item for files in members for item in files.items()):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def listed(files: dict[str, bytes]) -> bytes:
    """A backup manifest, as Postgres lays it out."""
    lines = [
        json.dumps(
            {
                "Path": name,
                "Size": len(content),
                "Checksum-Algorithm": "CRC32C",
                "Checksum": crc32c(content).to_bytes(4, "little").hex(),
            }
        )
        for name, content in files.items()
    ]
    text = '{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n' + ",\n".join(lines) + "\n],\n"
    checksum = hashlib.sha256(text.encode()).hexdigest()
    return (text + f'"Manifest-Checksum": "{checksum}"}}\n').encode()


def everything() -> dict[str, bytes]:
    return FILES | {f"pg_tblspc/16400/{name}": content for name, content in SPACE.items()}


def take(folder: Path, files_list: bytes, *, files: dict[str, bytes] = FILES) -> Staging:
    staging = Staging(folder / "staging", folder / "state")
    staging.begin(Lsn(0x2000028), 1, 0)
    staging.begin_archive(16400)
    staging.data(memoryview(archive(SPACE)))
    staging.begin_archive(None)
    data = memoryview(archive(files))
    for at in range(0, len(data), 1000):
        staging.data(data[at : at + 1000])
    staging.begin_manifest()
    staging.data(memoryview(files_list))
    staging.end()
    return staging


def test_forks_come_in_the_order_of_a_layer_with_their_content(tmp_path: Path) -> None:
    staging = take(tmp_path, listed(everything()))

    forks = [
        ((fork.spc, fork.db, fork.rel, fork.fork), [Path(file).read_bytes()[:1] for file in fork.files])
        for fork in staging.forks()
    ]

    assert forks == [
        ((1663, 5, 20, 0), [b"b"]),
        ((1663, 5, 16384, 0), [b"a"]),
        ((1663, 5, 16384, 2), [b"v"]),
        ((16400, 5, 16500, 0), [b"t"]),
    ]
    slrus = {
        kind: [(number, Path(file).read_bytes()[:1]) for number, file in files]
        for kind, files in staging.slrus()
    }
    assert slrus["pg_xact"] == [(0, b"0"), (1, b"1")]
    assert staging.state("global/pg_control") == FILES["global/pg_control"]


def test_a_file_goes_as_soon_as_its_fork_was_used(tmp_path: Path) -> None:
    forks = take(tmp_path, listed(everything())).forks()

    first = next(forks)
    next(forks)

    assert not Path(first.files[0]).exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"base/5/20": b"B" * PAGE}, "not as listed"),
        ({"base/5/20": b"b" * 2 * PAGE}, "not as listed"),
        ({"base/5/21": b"x" * PAGE}, "lacks a file of its list"),
    ],
)
def test_a_backup_that_is_not_as_its_list_says_is_refused(
    tmp_path: Path, change: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(BootstrapFailed, match=reason):
        take(tmp_path, listed(everything() | change))


def test_a_file_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    files = everything()
    del files["base/5/20"]

    with pytest.raises(BootstrapFailed, match="not in its list"):
        take(tmp_path, listed(files))


def test_a_damaged_list_is_refused(tmp_path: Path) -> None:
    text = listed(everything()).replace(b'"Size": 8192', b'"Size": 8193', 1)

    with pytest.raises(BootstrapFailed, match="fails its checksum"):
        take(tmp_path, text)


def test_a_file_sent_twice_is_refused(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging", tmp_path / "state")
    staging.begin_archive(None)

    with pytest.raises(BootstrapFailed, match="a file twice"):
        staging.data(memoryview(archive(FILES, {"base/5/20": b""})))


def test_only_whole_pages_of_segments_in_a_row_count(tmp_path: Path) -> None:
    files = FILES | {
        "base/5/30": b"x" * (PAGE + 100),
        "base/5/30.1": b"y" * PAGE,
        "base/5/31.1": b"z" * PAGE,
    }
    staging = take(tmp_path, listed(files | everything()), files=files)

    found = {fork.rel: [Path(file).stat().st_size for file in fork.files] for fork in staging.forks()}

    assert found[30] == [PAGE], "a first segment that is not full is the last that counts"
    assert 31 not in found, "a second segment without the first does not count"
