"""Builds the compiled modules: portable ones, for any machine of the platform.

setuptools translates a .pyx when it compiles it, so that metadata and the sdist cost no compiler.

``KALSHI_FAST_DEBUG=1`` compiles them with bounds checks and the address and undefined-behaviour sanitizers,
and further modules that ``KALSHI_FAST_MODULES`` names; ``tests/test_sanitizers.py`` runs such a build.
"""

import os
from pathlib import Path

from setuptools import Extension, setup

DEBUG = os.environ.get("KALSHI_FAST_DEBUG") == "1"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
# Python's own flags contain -fwrapv: with it an overflow is no error, and none would be reported.
SANITIZE += ["-fno-wrapv"]
MODULES = [
    "_book",
    "_clock",
    "_columns",
    "_decode",
    "_depth",
    "_features",
    "_frames",
    "_listener",
    "_path",
    "_replay",
    "_rows",
    "_shared",
    "_state",
    "_verify",
]
if DEBUG:
    MODULES += os.environ.get("KALSHI_FAST_MODULES", "").split()
else:
    MODULES += ["_bench"]  # under the sanitizers nothing is measured

DIRECTIVES = {
    "language_level": 3,
    "embedsignature": True,
    "freethreading_compatible": False,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
}


def extension(module: str) -> Extension:
    """One compiled module. What it cimports Cython looks after; a header is looked after here."""
    source = Path("src/kalshi_fast") / f"{module}.pyx"
    made = Extension(
        f"kalshi_fast.{module}",
        [str(source)],
        depends=[
            str(header) for header in source.parent.glob("*.h") if header.name in source.read_text("utf-8")
        ],
        extra_compile_args=["-O1", "-g", *SANITIZE] if DEBUG else ["-O3"],
        extra_link_args=SANITIZE if DEBUG else [],
    )
    made.cython_directives = DIRECTIVES
    made.cython_include_dirs = ["src"]
    return made


setup(ext_modules=[extension(module) for module in MODULES])
