"""Builds the compiled modules.

``KALSHI_FAST_DEBUG=1`` compiles them with bounds checks and the address and undefined-behaviour sanitizers;
``tests/test_sanitizers.py`` says how such a build is run.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("KALSHI_FAST_DEBUG") == "1"
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
MODULES = ("_book", "_columns", "_decode", "_path", "_state")

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"kalshi_fast.{module}",
                [f"src/kalshi_fast/{module}.pyx"],
                extra_compile_args=["-O1", "-g", *SANITIZE] if DEBUG else ["-O3"],
                extra_link_args=SANITIZE if DEBUG else [],
            )
            for module in MODULES
        ],
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
)
