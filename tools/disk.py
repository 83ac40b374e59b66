"""A disk of its own: ext4 on a loop device, to be filled, to fail, and to lose its power.

``fail`` shrinks the device under the mounted file system to one sector: every read, write and flush of the
block layer beyond it ends with EIO, as behind device-mapper's error target. What fdatasync was told of then is
as on any failing disk: it fails once, the pages count as clean afterwards, and the page cache still shows what
the disk never got.

Wants root, and a mount namespace of our own to go with (``tools.network.enter_private``).
"""

import contextlib
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from tools.network import run
from tools.wait import until

# linux/loop.h: struct loop_info64 and its two ioctls; where lo_sizelimit and lo_flags are in it.
_SET_STATUS, _GET_STATUS = 0x4C04, 0x4C05
_INFO_BYTES, _SIZE_LIMIT_AT, _FLAGS_AT = 232, 32, 52
_AUTOCLEAR = 4
_SECTOR = 512
_FILLER = "filler"


class Disk:
    """One such disk, mounted at ``folder``.

    Args:
        folder: made; the image, sparse, lies beside it.
        size_mb: as the file system sees it.
    """

    def __init__(self, folder: Path, *, size_mb: int) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._image = folder.with_name(folder.name + ".image")
        with self._image.open("wb") as image:
            image.truncate(size_mb << 20)
        shape = ("-i", "65536", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard")
        run("mkfs.ext4", "-q", "-F", *shape, str(self._image))
        self._device = run("losetup", "--find", "--show", str(self._image)).strip()
        # Open as long as we live: the kernel frees the device once nobody holds it, however we end.
        self._fd = os.open(self._device, os.O_RDWR)
        self._limit(0)
        self._is_hung = self._fails = False
        self._mount()

    def _mount(self) -> None:
        run("mount", "-o", "noatime", self._device, str(self.folder))

    def sync(self) -> None:
        """Bring all of it to the disk, as far as it is still there to bring."""
        # A failure of before is told once, to whoever syncs next.
        subprocess.run(["sync", "--file-system", self.folder], check=False, capture_output=True)
        run("sync", "--file-system", str(self.folder))

    # A full disk.

    def fill(self) -> int:
        """Leave no block free; the bytes that were."""
        fd = os.open(self.folder / _FILLER, os.O_RDWR | os.O_CREAT, 0o600)
        taken, step = 0, 1 << 30
        try:
            while step >= 4096:
                try:
                    os.posix_fallocate(fd, taken, step)
                    taken += step
                except OSError:
                    step //= 2
        finally:
            os.close(fd)
        return taken

    def free(self) -> None:
        """End ``fill``."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    # A failing disk.

    def fail(self) -> None:
        """From now on no block can be read or written."""
        self._limit(_SECTOR)
        self._fails = True

    def hang(self) -> None:
        """From now on whoever writes waits, and cannot be killed while it does."""
        if not self._is_hung:
            run("fsfreeze", "--freeze", str(self.folder))
            self._is_hung = True

    def mend(self) -> None:
        """End ``fail`` and ``hang``.

        The file system stays as it is: perhaps read-only, its cache perhaps ahead of the disk.
        """
        if self._fails:
            self._limit(0)
            self._fails = False
        self.go_on()

    @property
    def is_sound(self) -> bool:
        """True unless it fails or hangs."""
        return not self._fails and not self._is_hung

    def go_on(self) -> None:
        """End ``hang``."""
        if self._is_hung:
            run("fsfreeze", "--unfreeze", str(self.folder))
            self._is_hung = False

    def _limit(self, size: int) -> None:
        info = bytearray(_INFO_BYTES)
        fcntl.ioctl(self._fd, _GET_STATUS, info)
        struct.pack_into("=Q", info, _SIZE_LIMIT_AT, size)
        (flags,) = struct.unpack_from("=I", info, _FLAGS_AT)
        struct.pack_into("=I", info, _FLAGS_AT, flags | _AUTOCLEAR)
        # Not while the page cache of the device is being used: it says so and is asked again.
        until(lambda: self._set(info), what=f"{self._device} takes its new size")

    def _set(self, info: bytearray) -> bool:
        try:
            fcntl.ioctl(self._fd, _SET_STATUS, bytes(info))
        except BlockingIOError:
            return False
        return True

    @property
    def is_read_only(self) -> bool:
        """True if the file system gave up writing."""
        for line in Path("/proc/mounts").read_text().splitlines():
            _, where, _, options, *_ = line.split()
            if where == str(self.folder):
                # After an error ext4 refuses to write without saying so here on every kernel.
                return "ro" in options.split(",") or "emergency_ro" in options or not self._takes_files()
        return True

    def _takes_files(self) -> bool:
        probe = self.folder / "probe"
        try:
            probe.write_bytes(b"")
            probe.unlink()
        except OSError:
            return False
        return True

    # The power.

    def lose_power(self) -> None:
        """Drop what the page cache holds and the disk does not, and mount what is left.

        Whoever has files open here must have been killed after ``fail``, which keeps the rest from the disk.
        """
        self.go_on()
        until(self._unmounted, what=f"{self.folder} is let go of")
        self.mend()
        self._mount()

    def _unmounted(self) -> bool:
        done = subprocess.run(["umount", self.folder], capture_output=True, check=False)
        return done.returncode == 0

    def remove(self) -> None:
        """Unmount it and remove its image."""
        with contextlib.suppress(AssertionError):
            until(self._unmounted, what=f"{self.folder} is let go of", deadline_s=10)
        os.close(self._fd)
        self._image.unlink()

    def copy_to(self, folder: Path) -> None:
        """What lies on it, for a person to look at."""
        self.mend()
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(_FILLER, "lost+found"))
