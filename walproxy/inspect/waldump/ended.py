"""How pg_waldump ends before its work is done.

Ended            printed what was asked, or failed with what it printed
├── BadArgument  the command line is wrong
└── Fatal        the WAL or a file is not to be had
"""

PROGRAM = "pg_waldump"


class Ended(Exception):
    """The program ends with this code; ``output`` goes to stdout, ``complaint`` to stderr."""

    def __init__(self, code: int, *, output: str = "", complaint: str = "") -> None:
        super().__init__(complaint or output)
        self.code = code
        self.output = output
        self.complaint = complaint


class BadArgument(Ended):
    """Say what is wrong with the command line, and where help is."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        lines = [f"error: {message}"]
        if detail is not None:
            lines.append(f"detail: {detail}")
        lines.append(f'hint: Try "{PROGRAM} --help" for more information.')
        super().__init__(1, complaint="".join(f"{PROGRAM}: {line}\n" for line in lines))


class Fatal(Ended):
    """Say what is wrong, and end at once: totals are not shown any more."""

    def __init__(self, message: str, detail: str | None = None) -> None:
        lines = [f"error: {message}", *([] if detail is None else [f"detail: {detail}"])]
        super().__init__(1, complaint="".join(f"{PROGRAM}: {line}\n" for line in lines))
