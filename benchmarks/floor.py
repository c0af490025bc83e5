"""Builds the compiled listener that only counts (``_floor.pyx``), for the run that wants it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def built_floor(directory: Path) -> Any:  # noqa: ANN401
    """The module, compiled in this directory."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    source = Path(__file__).parent / "_floor.pyx"
    extensions = cythonize(  # type: ignore[no-untyped-call]
        [Extension("_floor", [str(source)], extra_compile_args=["-O3"])],
        build_dir=str(directory),
        compiler_directives={"language_level": 3},
        quiet=True,
    )
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(directory)
    command.ensure_finalized()
    command.run()
    (built,) = directory.glob("_floor*.so")
    spec = importlib.util.spec_from_file_location("_floor", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
