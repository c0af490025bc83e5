"""The cluster's schema in the genuine engine: a process of its own, prints one JSON object.

The engine has a cluster in its configuration but is no server, so three things are changed or left out:
ON CLUSTER is taken away, Replicated engines become plain ones, and Distributed tables are made, not read.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import clickhouse_connect

from kalshi_fast.errors import SchemaError
from kalshi_fast.migrations import check, migrate

CONFIG = """<clickhouse>
  <remote_servers><c>
    <shard><internal_replication>true</internal_replication>
      <replica><host>127.0.0.1</host><port>9</port></replica></shard>
    <shard><internal_replication>true</internal_replication>
      <replica><host>127.0.0.2</host><port>9</port></replica></shard>
  </c></remote_servers>
</clickhouse>
"""


def main(directory: Path) -> dict[str, Any]:
    config = directory / "config.xml"
    config.write_text(CONFIG, "utf-8")
    client = clickhouse_connect.get_client(interface="chdb", path=f"{directory}/engine?config-file={config}")
    command = client.command

    def alone(sql: str, **more: Any) -> Any:  # noqa: ANN401
        sql = re.sub(r"Replicated(\w+)\('[^']*', '[^']*'(?:, )?", r"\1(", sql.replace(" ON CLUSTER `c`", ""))
        return command(sql, **more)

    client.command = alone  # type: ignore[assignment, method-assign]

    def rows(sql: str) -> Any:  # noqa: ANN401
        return client.query(sql).result_rows

    found: dict[str, Any] = {
        "applied": [migration.number for migration in migrate(client, "d", "c")],
        "missing": [migration.number for migration in check(client, "d", "c")],
        "engines": dict(rows("SELECT name, engine FROM system.tables WHERE database = 'd'")),
    }
    made = dict(
        rows("SELECT name, engine_full FROM system.tables WHERE database = 'd' AND engine = 'Distributed'")
    )
    found["sharding"] = {}
    for name, engine in made.items():
        arguments = re.fullmatch(r"Distributed\('c', 'd', '(\w+)', (.*)\)", engine)
        assert arguments is not None, engine
        assert arguments[1] == f"{name}_local"
        found["sharding"][name] = arguments[2]
    columns = "SELECT name, type, default_kind FROM system.columns WHERE database = 'd' AND table ="
    found["same_columns"] = all(
        rows(f"{columns} '{name}'") == rows(f"{columns} '{name}_local'") for name in made
    )
    try:
        check(client, "d")
    except SchemaError as error:
        found["refused"] = str(error)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
    sys.stdout.flush()
    os._exit(0)
