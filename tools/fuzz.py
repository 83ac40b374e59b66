"""Fuzzes the native core: ``python -m tools.fuzz --seconds 600`` for each target that long.

Seeds come from WAL that stock servers of every major have just written (``tools.record_wal``, kept in ``build/fuzz``),
the corpus grows from run to run. The engine is libFuzzer, built in by the stable compiler. A failing input is copied to
``walcore/rust/fuzz/found/TARGET``, where it is a test from then on. Then every record of that WAL is damaged, and put
on damaged pages and on other pages than its own, ``--rounds`` times; and every bit of the first ``--flip-bytes`` of a
segment of each major is flipped, one at a time. The counts go to ``build/fuzz/fuzz.json``.

Exit code 1: something was found.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RUST = ROOT / "walcore" / "rust"
BUILD = ROOT / "build" / "fuzz"
FOUND = RUST / "fuzz" / "found"
TARGETS = ("stream", "record", "redo", "image", "layer")
SECONDS_PER_INPUT = 10
ENGINE_MB_MAX = 2048
INPUT_BYTES_MAX = 20_000
# What cargo-fuzz asks of the compiler, less the sanitizer, which needs a nightly one: walcore has no unsafe code.
PASSES = ("level=4", "trace-compares", "inline-8bit-counters", "pc-table")
COVERAGE = " ".join(
    ["-Cpasses=sancov-module", *(f"-Cllvm-args=-sanitizer-coverage-{name}" for name in PASSES)]
)


def build() -> tuple[Path, Path]:
    """Build; returns the folder of the engine and that of the plain programs."""
    plain = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "walcore-fuzz"]
    subprocess.run(plain, cwd=RUST, check=True)
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    (host,) = re.findall(r"^host: (.+)$", version, re.MULTILINE)
    engine = [*plain, "--bin", "fuzz", "--features", "libfuzzer", "--target", host]
    # A target is named so that build scripts and macros are left without the flags.
    environment = os.environ | {"RUSTFLAGS": COVERAGE}
    subprocess.run([*engine, "--target-dir", "target/fuzz"], cwd=RUST, env=environment, check=True)
    return RUST / "target" / "fuzz" / host / "release", RUST / "target" / "release"


def seed(programs: Path, wal: list[Path]) -> None:
    """Make the seeds out of recorded WAL, anew."""
    shutil.rmtree(BUILD / "seeds", ignore_errors=True)
    subprocess.run([programs / "seeds", BUILD / "seeds", *wal], check=True)


def fuzz(engine: Path, target: str, seconds: int, seed: int) -> dict[str, Any]:
    """Run one target; copies what it found to where it is a test."""
    corpus, artifacts, log = BUILD / "corpus" / target, BUILD / "found" / target, BUILD / f"{target}.log"
    shutil.rmtree(artifacts, ignore_errors=True)
    for folder in (corpus, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={ENGINE_MB_MAX}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-artifact_prefix={artifacts}/",
        "-use_value_profile=1",
        f"-seed={seed}",
        "-print_final_stats=1",
    ]
    command: list[str | Path] = [
        engine / "fuzz",
        *options,
        corpus,
        *existing(BUILD / "seeds" / target, FOUND / target),
    ]
    with log.open("wb") as output:
        done = subprocess.run(
            command, stdout=output, stderr=output, env=os.environ | {"FUZZ_TARGET": target}, check=False
        )
    text = log.read_text(errors="replace")
    found = sorted(artifacts.iterdir())
    for path in found:
        (FOUND / target).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, FOUND / target)
    if done.returncode != 0:
        print(f"{target}: exit={done.returncode} log={log}\n{text[-3000:]}", file=sys.stderr)
    return {
        "target": target,
        "seconds": seconds,
        "seed": seed,
        "inputs": number(r"stat::number_of_executed_units: (\d+)", text),
        "edges": number(r"cov: (\d+)", text),
        "corpus": len(list(corpus.iterdir())),
        "found": len(found),
        "exit_code": done.returncode,
    }


def mangle(programs: Path, folder: Path, rounds: int, seed: int) -> dict[str, Any]:
    """Put each record, page or both, damaged, through redo; failing inputs go to where they are tests."""
    return counted(folder, [programs / "mangle", FOUND / "redo", str(seed), str(rounds), folder])


def number(pattern: str, text: str) -> int | None:
    """The last number in ``text`` that the pattern's group matches."""
    numbers = re.findall(pattern, text)
    return int(numbers[-1]) if numbers else None


def existing(*folders: Path) -> list[Path]:
    return [folder for folder in folders if folder.is_dir()]


def flip(programs: Path, folder: Path, count: int) -> dict[str, Any]:
    """Flip every bit of the first ``count`` bytes of the second segment in a folder."""
    segment = sorted(folder.iterdir())[1]
    return counted(folder, [programs / "flips", segment, str(count)])


def counted(folder: Path, command: list[str | Path]) -> dict[str, Any]:
    """What a program says of the WAL in a folder, as JSON, and how it ended."""
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    counts: dict[str, Any] = json.loads(done.stdout or b"{}")
    return {"major": int(folder.name), "exit_code": done.returncode} | counts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20, help="for each target; a release runs 600")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--flip-bytes", type=int, default=1 << 20)
    parser.add_argument("--rounds", type=int, default=1, help="damage done to each record; a release runs 8")
    parser.add_argument("--majors", default="15,16,17,18")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--seed", type=int, default=1, help="of the engine's draws")
    arguments = parser.parse_args()
    record = [sys.executable, "-m", "tools.record_wal", BUILD / "wal", "--majors", arguments.majors]
    subprocess.run(record, cwd=ROOT, check=True)
    wal = [folder for major in arguments.majors.split(",") if (folder := BUILD / "wal" / major).is_dir()]
    engine, programs = build()
    seed(programs, wal)
    targets = arguments.targets.split(",")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = list(pool.map(lambda name: fuzz(engine, name, arguments.seconds, arguments.seed), targets))
        mangled = list(
            pool.map(lambda folder: mangle(programs, folder, arguments.rounds, arguments.seed), wal)
        )
        flips = list(pool.map(lambda folder: flip(programs, folder, arguments.flip_bytes), wal))
    report = {"targets": runs, "mangled": mangled, "flips": flips}
    (BUILD / "fuzz.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = runs + mangled + flips
    for line in lines:
        print(" ".join(f"{name}={value}" for name, value in line.items()))
    sys.exit(any(line["exit_code"] for line in lines))


if __name__ == "__main__":
    main()
