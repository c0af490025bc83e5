"""Builds the compiled modules: portable ones, for any machine of the platform.

``KALSHI_FAST_DEBUG=1`` compiles them with bounds checks and the address and undefined-behaviour sanitizers,
and further modules that ``KALSHI_FAST_MODULES`` names; ``tests/test_sanitizers.py`` runs such a build.
Modules are compiled side by side, and Cython's own memoryview code once for all of them (``_cyutility``).
Metadata and the sdist are made of the .pyx alone, and cost no compiler.
"""

import os
import sys
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
SHARED = "_cyutility"
JOBS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


BUILDING = {"build", "build_ext", "bdist_wheel", "editable_wheel", "develop", "install"} & set(sys.argv)


def extension(module: str, suffix: str = "pyx") -> Extension:
    source = Path("src/kalshi_fast") / f"{module}.{suffix}"
    text = source.read_text("utf-8") if source.exists() else ""
    return Extension(
        f"kalshi_fast.{module}",
        [str(source)],
        depends=[str(header) for header in source.parent.glob("*.h") if header.name in text],
        extra_compile_args=["-O1", "-g", *SANITIZE] if DEBUG else ["-O3"],
        extra_link_args=SANITIZE if DEBUG else [],
    )


def translated(modules: list[Extension]) -> list[Extension]:
    from Cython.Build import cythonize

    return cythonize(  # type: ignore[no-any-return]
        [*modules, extension(SHARED, "c")],
        nthreads=JOBS,
        shared_utility_qualified_name=f"kalshi_fast.{SHARED}",
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "embedsignature": True,
            "freethreading_compatible": False,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
        },
    )


modules = [extension(module) for module in MODULES]
setup(
    ext_modules=translated(modules) if BUILDING else modules,
    options={"build_ext": {"parallel": JOBS}},
)
