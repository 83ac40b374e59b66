"""Prints what the project and its developers need, from `pyproject.toml`."""

import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())
extras = [needed for extra in project["project"]["optional-dependencies"].values() for needed in extra]
needed = [*project["project"]["dependencies"], *extras, *project["dependency-groups"]["dev"]]
print("\n".join(dict.fromkeys(needed)))
