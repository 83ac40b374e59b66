"""Prints what the project and its developers need, from `pyproject.toml`."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())
print("\n".join([*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]))
