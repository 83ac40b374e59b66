"""What the majors' pg_waldump word differently."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Words:
    """The wording of one major. Source: ``xlogreader.c`` and ``pg_waldump.c`` of each."""

    major: int

    @property
    def length_wanted(self) -> str:
        """Of an impossible record length."""
        return "wanted" if self.major == 15 else "expected at least"

    def quoted(self, name: str) -> str:
        """A file that could not be read from."""
        return name if self.major <= 16 else f'"{name}"'

    def page_at(self, name: str, lsn: object, offset: int) -> str:
        """Where a page is refused."""
        if self.major == 15:
            return f"in log segment {name}, offset {offset}"
        return f"in WAL segment {name}, LSN {lsn}, offset {offset}"

    @property
    def tells_skipping_on_stdout(self) -> bool:
        return self.major <= 16

    @property
    def saves_full_pages(self) -> bool:
        return self.major > 15

    def segment_size(self, name: str, size: int) -> tuple[str, str | None]:
        """Of an impossible segment size: message and detail."""
        unit = "byte" if size == 1 else "bytes"
        if self.major <= 16:
            rule = "WAL segment size must be a power of two between 1 MB and 1 GB"
            return f'{rule}, but the WAL file "{name}" header specifies {size} {unit}', None
        return (
            f'invalid WAL segment size in WAL file "{name}" ({size} {unit})',
            "The WAL segment size must be a power of two between 1 MB and 1 GB.",
        )
