"""The native search: the module that walks from world to world, built if need be (walcore/rust/explore)."""

import functools
import importlib.util
import json
import os
import subprocess
from pathlib import Path
from types import ModuleType

RUST = Path(__file__).parents[2] / "walcore" / "rust"


@functools.cache
def module() -> ModuleType:
    """With `search(ask, task, states_max, threads)`."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "walcore-explore"]
    command += ["--features", "python", "--message-format=json"]
    environment = os.environ | {"PYO3_BUILD_EXTENSION_MODULE": "1"}
    done = subprocess.run(command, cwd=RUST, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    made = [json.loads(line) for line in done.stdout.splitlines()]
    files = [name for one in made for name in one.get("filenames", []) if one["target"]["name"] == "explore"]
    (path,) = [name for name in files if name.endswith((".so", ".dylib"))]
    spec = importlib.util.spec_from_file_location("explore", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
