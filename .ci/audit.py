"""Asks the package index what is known against the packages installed here (pip-audit): what kalshi-fast and
its tests need. Ends with 1 when something is known.

Where the index cannot be asked it says so, for that is no "nothing is known". With --strict that fails too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig

OURS = "kalshi-fast"


def main(arguments: list[str]) -> int:
    here = sysconfig.get_paths()["purelib"]
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--format",
        "json",
        "--progress-spinner",
        "off",
        "--path",
        here,
    ]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    unasked = 1 if "--strict" in arguments else 0
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = asked.stderr.strip().splitlines() or ["nothing"]
        sys.stderr.write(f"audit: nothing was audited, the package index could not be asked: {said[-1]}\n")
        return unasked
    audited = [package for package in packages if "vulns" in package]
    left_out = sorted(package["name"] for package in packages if "vulns" not in package)
    known = [(package, found) for package in audited for found in package["vulns"]]
    for package, found in known:
        fixed = ", ".join(found["fix_versions"]) or "no version yet"
        sys.stdout.write(f"{package['name']} {package['version']}: {found['id']}, mended in {fixed}\n")
    sys.stdout.write(f"audit: {len(audited)} packages audited, {len(known)} advisories\n")
    left_out = [name for name in left_out if name != OURS]
    if left_out:
        sys.stderr.write(
            f"audit: {len(left_out)} were not, the index's answer was missing: {' '.join(left_out)}\n"
        )
    return 1 if known else unasked if left_out else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
