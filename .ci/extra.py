"""Prints the requirements of an extra of pyproject.toml, for an environment without kalshi-fast itself."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
sys.stdout.write("\n".join(project["optional-dependencies"][sys.argv[1]]) + "\n")
