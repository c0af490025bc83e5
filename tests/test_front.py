"""The front answers as ClickHouse does, changes nothing, reaches nothing outside, and stays within bounds."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, IncompleteRead
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import chdb
import clickhouse_connect
import pyarrow as pa
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError, StreamFailureError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import front as writable
from kalshi_fast.errors import ConfigError
from kalshi_fast.front import Limits, QueryFront, bounded, endpoint, incoming
from kalshi_fast.sinks import clickhouse
from operators import tool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

USER, PASSWORD = "someone", "s3cret: ü"
DATABASE = "front test"
FOREVER = "SELECT sum(sipHash64(number)) FROM numbers(1000000000000)"


@pytest.fixture(scope="module")
def writer(engine_url: str) -> Iterator[Client]:
    """The one who owns the engine: a table of 1,000 rows, and a view."""
    client = clickhouse.open_client(engine_url, user="", password="")
    client.command(f"CREATE DATABASE `{DATABASE}`")
    client.database = DATABASE
    client.command("CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a")
    client.command("INSERT INTO t SELECT number, toString(number) FROM numbers(1000)")
    yield client
    client.close()


def make(engine_url: str, **options: Any) -> QueryFront:  # noqa: ANN401
    path = engine_url.removeprefix("chdb://")
    given = {"user": USER, "password": PASSWORD, "database": DATABASE} | options
    return QueryFront(lambda: chdb.connect(path), **given)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def front(engine_url: str, writer: Client) -> Iterator[QueryFront]:
    front = make(engine_url, limits=Limits(result_bytes=4_000_000, seconds=2, memory_bytes=100_000_000))
    front.start()
    yield front
    front.close()


@pytest.fixture
def client(front: QueryFront) -> Iterator[Client]:
    client = connect(front)
    yield client
    client.close()


def connect(front: QueryFront, **options: Any) -> Client:  # noqa: ANN401
    parts = urlsplit(front.url)
    given = {"host": parts.hostname, "port": parts.port, "username": USER, "password": PASSWORD} | options
    return clickhouse_connect.get_client(**given)


def ask(
    front: QueryFront,
    sql: str,
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    user: str = USER,
    password: str = PASSWORD,
    **fields: str,
) -> tuple[int, dict[str, str], str]:
    """One request as plain HTTP: status, headers, body."""
    parts = urlsplit(front.url)
    with closing(HTTPConnection(str(parts.hostname), parts.port, timeout=20)) as connection:
        query = urlencode({"user": user, "password": password} | fields)
        connection.request(method, f"/?{query}", body=sql.encode() or None, headers=headers or {})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read().decode()


def talk(front: QueryFront, data: bytes) -> bytes:
    """What comes back on a raw connection until its end."""
    parts = urlsplit(front.url)
    with socket.create_connection((str(parts.hostname), parts.port), timeout=20) as connection:
        answer = b""
        with suppress(OSError):  # it may hang up with our bytes unread: what came before counts
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                answer += part
        return answer


# --- what clients do ----------------------------------------------------------------------------------


def test_clickhouse_connect_asks_in_all_its_ways(client: Client) -> None:
    assert client.query("SELECT a, s FROM t WHERE a < 2 ORDER BY a").result_rows == [(0, "0"), (1, "1")]
    assert client.command("SELECT count() FROM t") == 1000
    assert client.raw_query("SELECT 1 AS x", fmt="JSONEachRow") == b'{"x":1}\n'
    assert client.query_arrow("SELECT a FROM t ORDER BY a").column("a").to_pylist() == list(range(1000))
    assert client.query_np("SELECT a FROM t ORDER BY a LIMIT 3").tolist() == [[0], [1], [2]]
    text = "a'b\\c\td\ne"
    given = {"x": text, "n": 7, "t": "t", "many": [1, 2]}
    asked = "SELECT {x:String}, {n:UInt8}, count(), sum(a IN {many:Array(UInt64)}) FROM {t:Identifier}"
    assert client.query(asked, parameters=given).result_rows == [(text, 7, 1000, 2)]
    with client.query_row_block_stream("SELECT number FROM numbers(200000)") as blocks:
        assert sum(len(block) for block in blocks) == 200_000
    assert client.query("SELECT a FROM t LIMIT 0").result_rows == []
    assert client.query("SELECT a FROM t WHERE a > 5000").result_rows == []
    assert client.query("SHOW TABLES").result_rows == [("t",)]
    assert client.ping()


@pytest.mark.parametrize("compress", [False, True, "gzip", "lz4", "zstd"])
def test_any_compression_may_be_asked_for(front: QueryFront, compress: bool | str) -> None:
    with closing(connect(front, compress=compress)) as client:
        assert client.query("SELECT sum(a) FROM t").result_rows == [(499_500,)]


def test_a_pandas_frame_is_as_good(client: Client) -> None:
    frame = client.query_df("SELECT a FROM t ORDER BY a LIMIT 2")
    assert list(frame["a"]) == [0, 1]


def test_curl(front: QueryFront) -> None:
    program = tool("curl")

    def curl(*arguments: str) -> str:
        command = [program, "-sS", "--user", f"{USER}:{PASSWORD}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert curl(f"{front.url}/?query=SELECT+1") == "1\n"
    assert curl("--data-binary", "SELECT 1", front.url + "/") == "1\n"
    assert curl("--compressed", "--data-binary", "1", f"{front.url}/?query=SELECT") == "1\n"
    assert curl("-H", "Transfer-Encoding: chunked", "--data-binary", "SELECT 2", front.url + "/") == "2\n"
    assert curl(front.url + "/ping") == curl(front.url + "/") == "Ok.\n"
    assert curl("-I", front.url + "/ping").startswith("HTTP/1.1 200 OK")
    assert len(curl(f"{front.url}/?query=SELECT+number+FROM+numbers(300000)").split()) == 300_000
    assert "Code: 62. DB::Exception: Syntax error" in curl("--data-binary", "SELEC 1", front.url + "/")
    # What fails in mid-answer must not look complete.
    late = ["--data-binary", "SELECT throwIf(number = 1900000) FROM numbers(2000000)", front.url + "/"]
    done = subprocess.run(
        ["curl", "-sS", "--user", f"{USER}:{PASSWORD}", *late], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "Code: 395" in done.stdout


def test_headers_formats_and_databases(front: QueryFront) -> None:
    status, headers, body = ask(front, "SELECT a FROM t ORDER BY a LIMIT 2", query_id="mine")
    assert (status, body) == (200, "0\n1\n")
    assert headers["X-ClickHouse-Query-Id"] == "mine"
    assert headers["X-ClickHouse-Format"] == "TabSeparated"
    assert headers["Content-Type"] == "text/tab-separated-values; charset=UTF-8"
    assert int(json.loads(headers["X-ClickHouse-Summary"])["read_rows"]) > 0
    status, headers, body = ask(front, "SELECT 1 AS x", default_format="JSONEachRow")
    assert (body, headers["X-ClickHouse-Format"]) == ('{"x":1}\n', "JSONEachRow")
    status, headers, body = ask(front, "SELECT 1 AS x FORMAT JSONCompact; -- so", default_format="CSV")
    assert (json.loads(body)["data"], headers["X-ClickHouse-Format"]) == ([[1]], "JSONCompact")
    assert ask(front, "SELECT currentDatabase()", database="system")[2] == "system\n"
    assert ask(front, "SELECT currentDatabase()")[2] == f"{DATABASE}\n"
    assert ask(front, "SELECT 1", database="no`such")[0] == 404
    totals = "SELECT a % 2 AS k, count() FROM t GROUP BY k WITH TOTALS ORDER BY k"
    assert ask(front, totals)[2] == "0\t500\n1\t500\n\n0\t1000\n"
    assert ask(front, "", method="HEAD", query="SELECT 1")[0] == 200
    assert ask(front, "SELECT 'é'")[2] == "é\n"
    assert ask(front, "SELECT 1", query_id="a\r\nX-Bad: 1")[1]["X-ClickHouse-Query-Id"] == "a??X-Bad: 1"


def test_errors_have_the_servers_codes(front: QueryFront, client: Client) -> None:
    for sql, code, status in (
        ("SELEC 1", 62, 400),
        ("SELECT nope FROM t", 47, 404),
        ("SELECT * FROM nope", 60, 404),
        ("", 62, 400),
        ("SELECT 1 FORMAT Nope", 73, 404),
        ("SELECT throwIf(1)", 395, 500),
    ):
        found, headers, body = ask(front, sql)
        assert (found, headers["X-ClickHouse-Exception-Code"]) == (status, str(code)), sql
        assert body.startswith(f"Code: {code}. DB::Exception: ")
        assert "formatQuery" not in body
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE") as raised:
        client.query("SELECT * FROM nope")
    assert raised.value.code == 60
    late = client.query("SELECT throwIf(number = 1900000) FROM numbers(2000000)")  # read on demand
    with pytest.raises(StreamFailureError, match="395"):
        list(late.result_rows)
    assert client.query("SELECT 1").result_rows == [(1,)]


# --- nothing is changed, nothing reached --------------------------------------------------------------

SECRET = "/etc/passwd"
WRITES = (
    "INSERT INTO t VALUES (1, 'x')",
    "INSERT INTO t SELECT 1, 'x'",
    "/* a /* nested */ comment */ -- and\n # another\n INSERT INTO t VALUES (1, 'x')",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 'x'",
    "WITH 1 AS x INSERT INTO t SELECT x, 'x'",
    "INSERT INTO FUNCTION file('{out}', 'CSV', 'a UInt8') SELECT 1",
    "INSERT INTO FUNCTION null('a UInt8') SELECT 1",
    "EXPLAIN INSERT INTO t SELECT 1, 'x'",
    "CREATE TABLE u (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE u (a UInt8)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE FUNCTION f AS (x) -> x",
    "CREATE DATABASE u",
    "CREATE USER u",
    "CREATE DICTIONARY d (a UInt64) PRIMARY KEY a SOURCE(FILE(path '{out}' format 'TSV')) LAYOUT(FLAT())"
    " LIFETIME(1)",
    "ALTER TABLE t DELETE WHERE 1",
    "ALTER TABLE t DROP COLUMN s",
    "DELETE FROM t WHERE 1",
    "UPDATE t SET s = 'x' WHERE 1",
    "DROP TABLE t",
    "TRUNCATE TABLE t",
    "DETACH TABLE t",
    "RENAME TABLE t TO u",
    "OPTIMIZE TABLE t FINAL",
    "SYSTEM SHUTDOWN",
    "SYSTEM FLUSH LOGS",
    "SYSTEM STOP MERGES",
    "KILL QUERY WHERE 1",
    "KILL MUTATION WHERE 1",
    "BACKUP TABLE t TO File('{out}')",
    "RESTORE TABLE t FROM File('{out}')",
    "GRANT ALL ON *.* TO default",
    "SET readonly = 0",
    "SET readonly = 2",
    "SET max_execution_time = 0",
    "SET ROLE NONE",
    "USE system",
    "EXECUTE AS default SELECT 1",
    "CHECK TABLE t",
    "BEGIN TRANSACTION",
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO/**/OUTFILE '{out}' FORMAT CSV",
    "SELECT 1 into outfile '{out}' AND STDOUT",
    "EXPLAIN SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1; SELECT 2",
    "SELECT 1; INSERT INTO t VALUES (1, 'x')",
    "SELECT 1;;DROP TABLE t",
    "SELECT 1 PARALLEL WITH DROP TABLE t",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS readonly = 2",
    "SELECT 1 SETTINGS max_execution_time = 0",
    "SELECT 1 SETTINGS max_result_bytes = 0",
    "SELECT * FROM (SELECT 1 SETTINGS max_memory_usage = 0)",
    "SELECT * FROM (SELECT demangle('x') SETTINGS allow_introspection_functions = 1)",
    "SELECT * FROM (SELECT 1 SETTINGS final, `allow_introspection_functions` = 1)",
    "SELECT * FROM (SELECT 1 SETTINGS allow_introspection_functions)",
    "SELECT 1 IN (SELECT 1 SETTINGS max_block_size = 9, allow_introspection_functions = 1)",
    "EXPLAIN SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '/etc/passwd'",
    "SELECT 1 SETTINGS output_format_schema = '{out}' FORMAT Protobuf",
    "SELECT 1 SETTINGS log_comment = 'x'",
)
REACHES = (
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM /*x*/ file /*y*/ ('/etc/passwd', 'LineAsString')",
    "SELECT * FROM `file`('/etc/passwd', 'LineAsString')",
    "SELECT * FROM \"file\"('/etc/passwd', 'LineAsString')",
    "SELECT * FROM \u201cfile\u201d('/etc/passwd', 'LineAsString')",
    "FROM file('/etc/passwd', 'LineAsString') SELECT *",
    "SELECT file('/etc/passwd')",
    "SELECT FILE('/etc/passwd')",
    "SELECT `f\\x69le`('/etc/passwd')",
    "SELECT arrayMap(x -> file(x), ['/etc/passwd'])",
    "SELECT arrayMap(file, ['/etc/passwd'])",
    "SELECT arrayMap({f:Identifier}, ['/etc/passwd'])",
    "SELECT arrayMap({ f : Identifier }, ['/etc/passwd'])",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd' AS x)",
    "SELECT * APPLY(x -> file(x)) FROM (SELECT '/etc/passwd' AS x)",
    "WITH (SELECT file('/etc/passwd')) AS x SELECT x",
    "SELECT 1 WHERE 'x' IN file('/etc/passwd', 'LineAsString')",
    "DESCRIBE file('/etc/passwd', 'CSV')",
    "DESCRIBE TABLE url('http://127.0.0.1:{port}/', 'CSV')",
    "DESCRIBE s3('http://127.0.0.1:{port}/bucket/x.csv')",
    "DESCRIBE (SELECT * FROM url('http://127.0.0.1:{port}/', 'CSV'))",
    "EXPLAIN SELECT * FROM url('http://127.0.0.1:{port}/', 'CSV')",
    "EXPLAIN AST SELECT * FROM file('/etc/passwd')",
    "SELECT * FROM url('http://127.0.0.1:{port}/', 'CSV')",
    "SELECT * FROM url('http://127.0.0.1:{port}/', CSV, 'a UInt8')",
    "SELECT * FROM urlCluster('x', 'http://127.0.0.1:{port}/', 'CSV')",
    "SELECT * FROM s3('http://127.0.0.1:{port}/bucket/x.csv')",
    "SELECT * FROM S3('http://127.0.0.1:{port}/bucket/x.csv')",
    "SELECT * FROM gcs('http://127.0.0.1:{port}/bucket/x.csv')",
    "SELECT * FROM iceberg('http://127.0.0.1:{port}/bucket/x')",
    "SELECT * FROM deltaLakeLocal('/tmp')",
    "SELECT * FROM remote('127.0.0.1:{port}', 'system', 'one')",
    "SELECT * FROM remote('127.0.0.1', 'system', 'one')",
    "SELECT * FROM remoteSecure('127.0.0.1:{port}', 'system', 'one')",
    "SELECT * FROM cluster('default', 'system', 'one')",
    "SELECT * FROM executable('id', 'LineAsString', 'a String')",
    "SELECT * FROM mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
    "SELECT * FROM postgresql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
    "SELECT * FROM mongodb('127.0.0.1:{port}', 'a', 'b', 'c', 'd', 'x Int8')",
    "SELECT * FROM redis('127.0.0.1:{port}', 'k', 'k String')",
    "SELECT * FROM sqlite('/tmp/x.db', 't')",
    "SELECT * FROM jdbc('x', 'y')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:{port}/x', 'CSV', 'a UInt8')",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:{port}/', 'x', 'y')",
    "SELECT * FROM dictionary('x')",
    "SELECT * FROM filesystem('/etc')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT * FROM Python(sys)",
    "DESCRIBE python(sys)",
    "SELECT aiGenerate('x')",
    "SELECT arrayMap(aiGenerate, ['x'])",
    "SELECT * FROM system.stack_trace",
)


@pytest.fixture(scope="module")
def trap() -> Iterator[socket.socket]:
    """A port of this machine that nobody must come to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("sql", WRITES + REACHES)
def test_it_is_refused(
    front: QueryFront, writer: Client, trap: socket.socket, tmp_path: Path, sql: str
) -> None:
    out = tmp_path / "out"
    sql = sql.replace("{out}", str(out)).replace("{port}", str(trap.getsockname()[1]))
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", sql, {}),
        ("GET", "", {"query": sql}),
        ("POST", sql, {"wait_end_of_query": "1", "session_id": "s", "param_f": "file"}),
        ("POST", sql, {"param_f": "`file`"}),
    ]
    for method, body, fields in ways:
        status, headers, text = ask(front, body, method=method, **fields)
        assert status >= 400, text
        assert int(headers["X-ClickHouse-Exception-Code"]) > 0
        assert "root:" not in text
    assert not out.exists()
    with pytest.raises(BlockingIOError):
        trap.accept()
    assert writer.query("SELECT count(), sum(a), max(s) FROM t").result_rows == [(1000, 499_500, "999")]
    assert [row[0] for row in writer.query("SHOW TABLES").result_rows] == ["t"]


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("readonly", "0", 164),
        ("readonly", "2", 164),
        ("max_execution_time", "0", 452),
        ("max_execution_time", "3600", 452),
        ("max_execution_time", "-1", 452),
        ("max_execution_time", "x", 36),
        ("max_execution_time", "nan", 36),
        ("max_result_bytes", "0", 452),
        ("max_memory_usage", "99999999999", 452),
        ("max_threads", "64", 452),
        ("result_overflow_mode", "break", 164),
        ("log_comment", "x", 164),
        ("allow_experimental_eval_table_function", "1", 164),
        ("format_template_resultset", SECRET, 164),
        ("format_schema", SECRET, 164),
        ("output_format_schema", "/tmp/x", 164),
        ("allow_ddl", "0", 164),
        ("no_such_setting", "1", 115),
        ("a = 1, readonly", "0", 36),
        ("output_format_x = 1, readonly", "0", 36),
        ("param", "x", 115),
    ],
)
def test_a_setting_in_the_url_lifts_nothing(front: QueryFront, name: str, value: str, code: int) -> None:
    fields: dict[str, Any] = {name: value}
    status, headers, body = ask(front, "SELECT 1", **fields)
    assert (status != 200, headers.get("X-ClickHouse-Exception-Code")) == (True, str(code)), body


def test_harmless_settings_are_applied(front: QueryFront) -> None:
    sql = "SELECT getSetting('max_threads'), getSetting('max_execution_time'), toString(toDateTime(0))"
    fields: dict[str, Any] = {"max_threads": "1", "max_execution_time": "1", "session_timezone": "Asia/Tokyo"}
    status, headers, body = ask(front, sql, **fields)
    assert body == "1\t1\t1970-01-01 09:00:00\n"
    assert (status, headers["X-ClickHouse-Timezone"]) == (200, "Asia/Tokyo")
    assert (
        ask(front, "SELECT 1 SETTINGS output_format_csv_crlf_end_of_line = 0")[0] == 200
    )  # as it is already
    quoted = "it's \\ so"
    assert ask(front, "SELECT NULL", format_tsv_null_representation=quoted)[2] == f"{quoted}\n"
    assert ask(front, "SELECT number FROM numbers(9)", offset="7")[2] == "7\n8\n"


SCALARS = st.sampled_from(["file", "FILE", "`file`", '"file"', "url", "s3", "Python", "remote"])
SPACE = st.sampled_from(["", " ", "\n", "\t", "/* x */", "-- x\n", "/* /* x */ */", "#! x\n"])
WRAPS = st.sampled_from(
    [
        "SELECT {}",
        "SELECT * FROM {}",
        "DESCRIBE {}",
        "SELECT (SELECT {})",
        "SELECT 1 UNION ALL SELECT {}",
        "EXPLAIN SELECT {}",
        "WITH x AS (SELECT * FROM {}) SELECT * FROM x",
        "SELECT 1 IN (SELECT * FROM {})",
        "SELECT '\\'', {} -- '",
        "SELECT 'a''b', {}",
        "SELECT $$'$$, {}",
        "SELECT `a\\`b`, {} FROM (SELECT 1 AS `a\\`b`)",
    ]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=SCALARS, before=SPACE, after=SPACE, wrap=WRAPS)
def test_no_form_of_a_call_reaches_a_file(
    front: QueryFront, name: str, before: str, after: str, wrap: str
) -> None:
    status, _, body = ask(front, wrap.format(f"{before}{name}{after}('{SECRET}')"))
    assert status >= 400
    assert "root:" not in body


def test_literals_and_columns_with_such_names_are_free(front: QueryFront) -> None:
    for sql in (
        "SELECT 'file(1) INTO OUTFILE x; DROP TABLE t'",
        "SELECT s AS url, a AS s3 FROM t LIMIT 1",
        "SELECT $$KILL QUERY$$ -- INSERT",
        "SELECT * FROM numbers(1)",
        "SELECT * FROM merge(currentDatabase(), '^t$') LIMIT 1",
        "SELECT * FROM view(SELECT 1)",
        "EXISTS TABLE t",
        "SHOW CREATE TABLE t",
        "DESCRIBE t",
        "EXPLAIN SELECT 1",
        "(SELECT 1) UNION ALL (SELECT 2)",
    ):
        assert ask(front, sql)[0] == 200, sql


# --- who may ask --------------------------------------------------------------------------------------


def test_wrong_credentials(front: QueryFront, engine_url: str) -> None:
    for user, password in (
        ("someone", "x"),
        ("x", PASSWORD),
        ("default", ""),
        ("", ""),
        (USER, PASSWORD + "x"),
    ):
        status, headers, body = ask(front, "SELECT 1", user=user, password=password)
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "516")
        assert "AUTHENTICATION_FAILED" in body
        named = {"X-ClickHouse-User": quote(user), "X-ClickHouse-Key": quote(password)}
        assert ask(front, "SELECT 1", headers=named)[0] == 403  # headers go before the URL
    for value in ("Basic", "Basic !", "Bearer x", "Basic Og==", "Basic " + "A" * 5000):
        assert b" 403 " in talk(
            front, f"GET /?query=SELECT+1 HTTP/1.0\r\nAuthorization: {value}\r\n\r\n".encode()
        ), value
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        connect(front, password="x")
    with closing(make(engine_url, user="default", password="")) as free:
        free.start()
        assert ask(free, "SELECT 1", user="default", password="")[2] == "1\n"
        assert talk(free, b"GET /?query=SELECT+1 HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n1\n")
        assert b" 403 " in talk(free, b"GET /?query=SELECT+1&user=x HTTP/1.0\r\n\r\n")
        # A web page whose name has been made to mean this machine.
        assert b" 403 " in talk(free, b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: evil.example\r\n\r\n")


def test_it_listens_on_this_machine_only(engine_url: str, writer: Client) -> None:
    for host, options in (("0.0.0.0", {}), ("::", {}), ("10.0.0.1", {"password": ""}), ("example.com", {})):
        with pytest.raises(ConfigError, match="QUERY_LISTEN"):
            make(engine_url, host=host, **options)
    with pytest.raises(ConfigError, match="QUERY_LISTEN"):
        make(engine_url, host="0.0.0.0", password="", allow_remote=True)
    with closing(make(engine_url)) as front:
        front.start()
        taken = urlsplit(front.url).port
        with closing(make(engine_url, port=taken)) as second, pytest.raises(ConfigError, match="in use"):
            second.start()
        assert ask(front, "SELECT 1")[0] == 200


# --- bounds -------------------------------------------------------------------------------------------


def test_time_memory_and_size_are_bounded(front: QueryFront) -> None:
    assert ask(front, FOREVER)[1]["X-ClickHouse-Exception-Code"] == "159"
    assert (
        ask(front, "SELECT groupArray(number) FROM numbers(100000000)")[1]["X-ClickHouse-Exception-Code"]
        == "241"
    )
    for output in ("TabSeparated", "JSONCompact", "Parquet"):  # a stream, and two made at once
        sql = f"SELECT number, randomPrintableASCII(100) FROM numbers(1000000) FORMAT {output}"
        parts = urlsplit(front.url)
        with closing(HTTPConnection(str(parts.hostname), parts.port)) as connection:
            connection.request("POST", f"/?{urlencode({'user': USER, 'password': PASSWORD})}", body=sql)
            response = connection.getresponse()
            try:
                got = response.read()
            except IncompleteRead as error:
                got = error.partial
        assert b"Code: 396" in got
        assert len(got) < 5_000_000
    # A text can be much larger than its columns.
    long = "SELECT number AS " + "x" * 1000 + " FROM numbers(20000) FORMAT JSON"
    assert ask(front, long)[1]["X-ClickHouse-Exception-Code"] == "396"


def test_one_too_many_waits_and_is_told(engine_url: str, writer: Client) -> None:
    limits = Limits(concurrent=2, wait_s=0.05, seconds=20)
    with closing(make(engine_url, limits=limits)) as front:
        front.start()

        def occupy() -> None:
            with suppress(OSError, HTTPException):  # it is cut at the end
                ask(front, FOREVER)

        threads = [threading.Thread(target=occupy) for _ in range(2)]
        for thread in threads:
            thread.start()
        while (refused := ask(front, "SELECT 1"))[0] != 503:
            assert refused[0] == 200
        assert refused[1]["X-ClickHouse-Exception-Code"] == "202"
        assert "TOO_MANY_SIMULTANEOUS_QUERIES" in refused[2]
        front.close()  # ends them: it would take 20 s otherwise, and then they are refused
        for thread in threads:
            thread.join(15)
            assert not thread.is_alive()


def test_ending_cuts_streams_too_and_frees_the_engine(engine_url: str, writer: Client) -> None:
    front = make(engine_url)
    front.start()
    parts = urlsplit(front.url)
    login = urlencode({"user": USER, "password": PASSWORD})
    with socket.create_connection((str(parts.hostname), parts.port)) as connection:
        endless = b"SELECT number FROM numbers(1000000000)"
        connection.sendall(
            f"POST /?{login} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(endless)}\r\n\r\n".encode()
            + endless
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")
        front.close()
        front.close()
    asked = "SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], 'front-')"
    assert writer.command(asked) == 0
    assert not [
        thread
        for thread in threading.enumerate()
        if thread.name == "query-front-client" and thread.is_alive() and front.url in repr(thread)
    ]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(parts.hostname), parts.port))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        (b"GET / HTTP/9.9\r\n\r\n", b"Invalid HTTP version"),
        (b"NONSENSE\r\n\r\n", b"Bad request"),
        (b"BREW / HTTP/1.1\r\n\r\n", b" 501 "),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 30_000 + b"\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\n" + (b"A: " + b"b" * 60_000 + b"\r\n") * 10 + b"\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 70_000 + b"\r\n\r\n", b" 431 "),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b" 400 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", b" 413 "),
        (b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", b" 413 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n", b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5, b" 400 "),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 50, b" 400 "),
        (b"GET http://[ HTTP/1.0\r\n\r\n", b" 400 "),
        (b"GET /?" + b"a&" * 2000 + b" HTTP/1.0\r\n\r\n", b" 400 "),
        (b"GET /../../etc/passwd HTTP/1.0\r\n\r\n", b" 403 "),
        (b"GET /ping HTTP/1.1\r\nHost: [\r\n\r\n", b" 403 "),
        (b"", b""),
    ],
)
def test_hostile_requests(front: QueryFront, data: bytes, expected: bytes) -> None:
    answer = talk(front, data)
    assert expected in answer
    assert b"root:" not in answer
    assert b"Traceback" not in answer
    assert ask(front, "SELECT 1")[0] == 200


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from([b"", b"POST / HTTP/1.1\r\n", b"GET /?query="]))
def test_any_bytes(front: QueryFront, data: bytes, head: bytes) -> None:
    talk(front, head + data)
    assert ask(front, "SELECT 1")[0] == 200


names = st.sampled_from(
    [
        *("query", "database", "default_format", "query_id", "session_id", "compress", "decompress", "user"),
        *("password", "param_a", "param_", "max_rows_to_read", "max_execution_time", "buffer_size", "limit"),
        *(
            "output_format_json_quote_64bit_integers",
            "output_format_schema",
            "log_comment",
            "readonly",
            "",
            "x",
        ),
    ]
)
words = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["1", "0", "-1", "1e400", "SELECT {a:String}", "SELECT 1 FORMAT", "Null", "\r\nX-Mine: 1", "system"]
    ),
)
pairs = st.lists(st.tuples(names, words), max_size=5)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pairs,
    words,
    st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    st.text("abcXYZ09-:;=\x00\xff", max_size=20),
)
def test_whatever_is_asked_by_who_may_ask(
    front: QueryFront,
    caplog: pytest.LogCaptureFixture,
    fields: list[tuple[str, str]],
    body: str,
    method: str,
    value: str,
) -> None:
    query = urlencode([("user", USER), ("password", PASSWORD), *fields], errors="surrogatepass")
    content = body.encode(errors="surrogatepass")
    head = f"{method} /?{query} HTTP/1.0\r\nX-ClickHouse-Format: {value}\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    answer = talk(front, head.encode("latin-1") + content)
    top, _, _ = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.1 [2-5]\d\d ", top), top
    assert not re.search(rb"^X-Mine", top, re.MULTILINE), "no value begins a header of its own"
    assert b"Traceback" not in answer
    assert PASSWORD.encode() not in answer
    assert caplog.records == [], "nothing of it is a surprise"
    assert ask(front, "SELECT 1")[0] == 200


def test_bodies_that_are_no_statement(front: QueryFront) -> None:
    for headers in ({"Content-Encoding": "gzip"}, {"Content-Type": "multipart/form-data; boundary=x"}):
        status, found, _ = ask(front, "SELECT 1", headers=headers)
        assert (status, found["X-ClickHouse-Exception-Code"]) == (501, "48")
    login = urlencode({"user": USER, "password": PASSWORD})
    for body, code in ((b"SELECT '\xff'", b"62"), (b"SELECT 1\x00", b"62")):
        head = f"POST /?{login} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        assert b"X-ClickHouse-Exception-Code: " + code in talk(front, head + body)
    assert ask(front, "SELECT '" + "x" * 900_000 + "'")[0] >= 400  # the engine's own max_query_size
    deep = "SELECT " + "(" * 50_000 + "1" + ")" * 50_000
    assert ask(front, deep)[0] >= 400
    assert ask(front, "SELECT 1")[0] == 200


def test_a_slow_or_silent_client_is_let_go(front: QueryFront, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = urlsplit(front.url)
    monkeypatch.setattr(incoming, "IDLE_S", 0.2)
    monkeypatch.setattr(incoming, "REQUEST_S", 0.2)
    for data in (b"", b"GET /ping HTTP/1.1\r\nA:", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nSEL"):
        with socket.create_connection((str(parts.hostname), parts.port), timeout=20) as connection:
            connection.sendall(data)
            assert connection.recv(100) == b""


def test_connections_are_bounded(
    engine_url: str,
    writer: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bounded, "MAX_CONNECTIONS", 3)
    with closing(make(engine_url)) as front:
        front.start()
        parts = urlsplit(front.url)
        address = (str(parts.hostname), parts.port)
        opened = [socket.create_connection(address, timeout=20) for _ in range(3)]
        try:
            for connection in opened:
                connection.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
            assert talk(front, b"GET /ping HTTP/1.1\r\n\r\n") == b""
        finally:
            for connection in opened:
                connection.close()


# --- beside the writer --------------------------------------------------------------------------------


def test_queries_and_inserts_go_on_together(engine_url: str, writer: Client) -> None:
    """Each answer is of whole inserts: a multiple of 2,000 rows, never fewer than before."""
    writer.command("CREATE TABLE growing (a UInt64) ENGINE = MergeTree ORDER BY a")
    rows = pa.table({"a": pa.array(range(2000), pa.uint64())})
    seen: list[list[int]] = [[], []]
    with closing(make(engine_url)) as front:
        front.start()
        ended = threading.Event()

        def read(counts: list[int]) -> None:
            with closing(connect(front, database=DATABASE)) as client:
                while not ended.is_set() or not counts:
                    counts.append(client.query("SELECT count() FROM growing").result_rows[0][0])

        readers = [threading.Thread(target=read, args=(counts,)) for counts in seen]
        for reader in readers:
            reader.start()
        for _ in range(40):
            writer.insert_arrow("growing", rows)
        ended.set()
        for reader in readers:
            reader.join()
        with closing(connect(front, database=DATABASE)) as client:
            assert client.command("SELECT count() FROM growing") == 80_000
    for counts in seen:
        assert counts == sorted(counts)
        assert all(count % 2000 == 0 for count in counts)
    writer.command("DROP TABLE growing")


# --- finding it ---------------------------------------------------------------------------------------


def test_the_endpoint_file(tmp_path: Path) -> None:
    assert endpoint.read_endpoint(tmp_path) is None
    path = endpoint.write_endpoint(tmp_path, "http://127.0.0.1:4711")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == [endpoint.NAME]
    assert endpoint.read_endpoint(tmp_path) == "http://127.0.0.1:4711"
    endpoint.remove_endpoint(tmp_path, "http://127.0.0.1:1")  # another's
    assert path.exists()
    endpoint.remove_endpoint(tmp_path, "http://127.0.0.1:4711")
    endpoint.remove_endpoint(tmp_path, "http://127.0.0.1:4711")
    assert not path.exists()


def test_endpoint_files_that_do_not_count(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for text in (
        json.dumps({"url": "http://127.0.0.1:1", "pid": gone.pid}),
        json.dumps({"url": "ftp://127.0.0.1:1", "pid": 1}),
        json.dumps({"url": "http://127.0.0.1", "pid": 1}),
        json.dumps({"url": "http://127.0.0.1:99999", "pid": 1}),
        json.dumps({"url": 7, "pid": 1}),
        json.dumps({"url": "http://127.0.0.1:1", "pid": -1}),
        json.dumps({"url": "http://127.0.0.1:1", "pid": True}),
        json.dumps({"url": "http://127.0.0.1:1", "pid": 10**30}),
        json.dumps({"url": "http://127.0.0.1:1"}),
        "[]",
        "7",
        "{",
        "",
        "[" * 4000,
        "\x00",
    ):
        (tmp_path / endpoint.NAME).write_text(text)
        assert endpoint.read_endpoint(tmp_path) is None, text
    (tmp_path / endpoint.NAME).unlink()
    (tmp_path / endpoint.NAME).mkdir()
    assert endpoint.read_endpoint(tmp_path) is None


OWNER = """
import sys, chdb
from pathlib import Path
from kalshi_fast.front import QueryFront, endpoint
directory = Path(sys.argv[1])
engine = chdb.connect(str(directory))
engine.query("CREATE DATABASE kalshi")
engine.query("CREATE TABLE kalshi.t ENGINE = Log AS SELECT 42 AS x")
if sys.argv[2] == "on":
    front = QueryFront(lambda: chdb.connect(str(directory)), password=sys.argv[3], database="kalshi")
    endpoint.write_endpoint(directory, front.start())
print("ready", flush=True)
sys.stdin.read()
if sys.argv[2] == "on":
    front.close()
    endpoint.remove_endpoint(directory, front.url)
"""


@pytest.mark.parametrize("place", ["CLICKHOUSE_URL", "--dir"])
def test_the_query_command_finds_the_front_of_a_running_owner(tmp_path: Path, place: str) -> None:
    directory = tmp_path / ("demo/clickhouse" if place == "--dir" else "my db")
    directory.mkdir(parents=True)
    owners = "" if place == "--dir" else "pw"  # --dir has nothing to do with what is configured

    def query(sql: str, password: str = "pw") -> subprocess.CompletedProcess[str]:
        where = ["--dir", str(tmp_path / "demo")] if place == "--dir" else []
        environ = {"CLICKHOUSE_URL": f"chdb://{directory}", "CLICKHOUSE_PASSWORD": password, "PATH": ""}
        environ["PYTHONPATH"] = ":".join(sys.path)
        command = [sys.executable, "-m", "kalshi_fast", "query", "--format", "TSV", *where, sql]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environ)

    for state in ("off", "on"):
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(directory), state, owners],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        assert owner.stdin is not None
        assert owner.stdout is not None
        with owner:
            assert owner.stdout.readline() == b"ready\n"
            done = query("SELECT x FROM kalshi.t")
            if state == "off":
                assert done.returncode == 2
                assert re.search("in use by another process .* QUERY_LISTEN", done.stderr)
            else:
                assert (done.stdout, done.stderr, done.returncode) == ("42\n", "", 0)
                refused = query("DROP TABLE kalshi.t")
                assert (refused.returncode, "READONLY" in refused.stderr) == (1, True)
                wrong = query("SELECT 1", password="x")
                if owners:
                    assert (wrong.returncode, "AUTHENTICATION_FAILED" in wrong.stderr) == (1, True)
                else:
                    assert (wrong.returncode, wrong.stdout) == (0, "1\n")
            owner.stdin.close()
        if state == "off":
            shutil.rmtree(directory)
            directory.mkdir()
    assert not (directory / endpoint.NAME).exists()
    assert query("SELECT x FROM kalshi.t").stdout == "42\n"  # the engine itself again


# --- the tests' own server ----------------------------------------------------------------------------


@pytest.fixture
def faulty(engine_url: str, writer: Client) -> Iterator[writable.Front]:
    writer.command(
        "CREATE TABLE f (a UInt64) ENGINE = MergeTree ORDER BY a"
        " SETTINGS non_replicated_deduplication_window = 100"
    )
    with writable.running(engine_url) as front:
        yield front
    writer.command("DROP TABLE f")


ROWS = pa.table({"a": pa.array([1, 2, 3], pa.uint64())})


def insert(client: Client, token: str) -> None:
    client.insert_arrow(
        "f", ROWS, settings={"insert_deduplication_token": token, "max_partitions_per_insert_block": 0}
    )


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("refuse", 0),
        ("500_before", 0),
        ("500_after", 3),
        ("cut_before", 0),
        ("cut_after", 3),
        ("garbage_before", 0),
        ("garbage_after", 3),
        ("wrong_credentials", 0),
    ],
)
def test_a_scripted_fault_fails_the_insert_before_or_after_it_happened(
    faulty: writable.Front, writer: Client, kind: writable.Kind, stored: int
) -> None:
    with closing(
        connect(faulty, username=writable.USER, password=writable.PASSWORD, database=DATABASE)
    ) as client:
        faulty.fail_next(kind)
        with pytest.raises((DatabaseError, OperationalError)):
            insert(client, "one")
        assert faulty.faults_left == 0
        assert writer.command("SELECT count() FROM f") == stored
        insert(client, "one")  # the same again: stored once, whatever became of the first
        assert writer.command("SELECT count() FROM f") == 3
        assert faulty.inserts[-1].settings["insert_deduplication_token"] == "one"


def test_stalls_and_outages(faulty: writable.Front, writer: Client) -> None:
    with closing(
        connect(faulty, username=writable.USER, password=writable.PASSWORD, database=DATABASE)
    ) as client:
        faulty.fail_next("stall", times=2, seconds=0.01)
        insert(client, "one")
        insert(client, "two")
        assert faulty.faults_left == 0
        faulty.fail_next("500_before", on="any")
        with pytest.raises(DatabaseError, match="999"):
            client.query("SELECT 1")
        faulty.away()
        with pytest.raises(OperationalError):
            insert(client, "three")
        url = faulty.url
        faulty.back()
        assert faulty.url == url
        insert(client, "three")
        assert writer.command("SELECT count() FROM f") == 9
