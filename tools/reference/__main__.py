"""``python -m tools.reference``: writes every page that is made from the code."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from kalshi_fast.sinks import clickhouse
from tools.reference import api, commands, errors, metrics, schema, settings

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGES: Final = {
    "reference/api.md": api.document,
    "reference/commands.md": commands.document,
    "reference/errors.md": errors.document,
    "reference/settings.md": settings.document,
    "metrics.md": metrics.document,
}
SCHEMA: Final = "reference/schema.md"
DATABASE: Final = "kalshi"


def main() -> None:
    """Writes what is stale, and says so."""
    made = {name: document() for name, document in PAGES.items()}
    with tempfile.TemporaryDirectory() as directory:
        client = clickhouse.connect(f"chdb://{directory}", user="default", password="", database=DATABASE)
        made[SCHEMA] = schema.document(client, DATABASE)
        client.close()
    for name, text in made.items():
        path = DOCS / name
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
            sys.stdout.write(f"written  docs/{name}\n")


if __name__ == "__main__":
    main()
