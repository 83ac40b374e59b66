"""Measures ours beside its peer: interleaved rounds, medians, and how far the rounds lay apart."""

import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Lowest and highest of the rounds."""

    ours: tuple[float, float]
    peer: tuple[float, float]
    ratio: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the report. ``ratio`` is the median of the rounds, above 1 where ours is better."""

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    runs: int
    spread: Spread

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def rounds(
    measures: Mapping[str, Callable[[], Mapping[str, float]]], *, runs: int, say: Callable[[str], None]
) -> dict[str, list[Mapping[str, float]]]:
    """Take every measure once a round, in turning order, and give what each gave, round by round.

    Args:
        measures: by the name of the arrangement; each gives its figures by name.
        runs: number of rounds.
        say: gets a line of progress a measure.
    """
    taken: dict[str, list[Mapping[str, float]]] = {name: [] for name in measures}
    for number in range(runs):
        names = list(measures)
        # Whoever comes first finds a cooler machine and a shorter log: let each be first in turn.
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            figures = measures[name]()
            taken[name].append(figures)
            shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items())
            say(f"round {number + 1}/{runs} {name}: {shown}")
    return taken


def compare(
    name: str,
    unit: str,
    *,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    better: Better = "higher",
) -> Result:
    """Put the rounds of ours and of the peer, taken in pairs, into one result."""
    pairs = list(zip(ours, peer, strict=True))
    ratios = [a / b if better == "higher" else b / a for a, b in pairs]
    return Result(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        peer=statistics.median(peer),
        peer_name=peer_name,
        ratio=statistics.median(ratios),
        runs=len(pairs),
        spread=Spread(_span(ours), _span(peer), _span(ratios)),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of the sorted values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in _lines(cpuinfo) if line.startswith("model name")]
    memory = [int(line.split()[1]) for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal")]
    return {
        "cores": os.cpu_count(),
        "cpu": models[0] if models else platform.processor(),
        "memory_mb": memory[0] // 1024 if memory else None,
        "kernel": platform.release(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _span(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
