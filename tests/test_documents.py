"""Everything is documented: what the code has and the pages lack fails here, and so does what they say and
the code does not have; links, anchors, pictures and command lines included.

Pages that are made from the code must be what `make docs` would write now. That they are complete is read
from their text, not from what makes them.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml
from tools import website
from tools.reference import api, commands, meanings, schema, settings
from tools.reference.__main__ import PAGES, SCHEMA

import kalshi_fast
from kalshi_fast import errors, migrations
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.commands.parser import parser as command_line
from kalshi_fast.config import SETTINGS
from kalshi_fast.errors import KalshiFastError
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.parquet import HISTORIES
from kalshi_fast.status.health import REASONS
from kalshi_fast.status.metrics import METRICS

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from clickhouse_connect.driver.client import Client

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
DATABASE: Final = "documents"
TEXTS: Final = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in sorted([*ROOT.glob("*.md"), *DOCS.glob("**/*.md")])
}
_BLOCK = re.compile(
    r"^(?P<fence>```+)(?P<kind>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)\s*$", re.MULTILINE | re.DOTALL
)
_SHELL: Final = ("", "bash", "sh", "shell")


def page(name: str) -> str:
    return TEXTS[f"docs/{name}"]


def section(name: str, heading: str) -> str:
    """The part of a page under a heading, up to the next one of its level or above."""
    text = page(name)
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    assert found is not None, f"docs/{name} has no heading {heading!r}"
    following = re.search(rf"^#{{1,{len(found[1])}}} ", text[found.end() :], re.MULTILINE)
    return text[found.end() :][: following.start() if following else None]


def first_cells(text: str) -> list[str]:
    """What the rows of a table begin with."""
    return re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)


# --- made from the code -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(engine_url: str) -> Iterator[Client]:
    client = clickhouse.connect(engine_url, user="default", password="", database=DATABASE)
    yield client
    client.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_makes_of_it(name: str) -> None:
    assert page(name) == PAGES[name](), f"docs/{name} is stale: make docs"


def test_the_schema_is_what_the_engine_has(client: Client) -> None:
    assert page(SCHEMA) == schema.document(client, DATABASE), f"docs/{SCHEMA} is stale: make docs"


# --- complete -----------------------------------------------------------------------------------------------


def test_every_setting_is_documented() -> None:
    headings = re.findall(r"^### `(\w+)`$", page("reference/settings.md"), re.MULTILINE)
    assert sorted(headings) == sorted(setting.name for setting in SETTINGS)
    for setting in SETTINGS:
        entry = section("reference/settings.md", f"`{setting.name}`")
        assert setting.help[1:].rstrip(".") in entry
        assert f"TOML: `{setting.name.lower()}`" in entry
        assert f"`{setting.default}`" in entry if setting.default else "default: not set" in entry
        assert ("- a secret" in entry) == setting.secret
    assert settings.NOTES.keys() <= set(headings)


def test_every_command_and_every_flag_is_documented() -> None:
    text, parsers = page("reference/commands.md"), commands.subparsers(command_line())
    assert re.findall(r"^## `kalshi-fast (\w+)`$", text, re.MULTILINE) == list(parsers)
    assert parsers.keys() == commands.FAILURES.keys()
    flags_of_settings = set(re.findall(r"`(--[\w-]+)`", page("reference/settings.md")))
    for name, parser in parsers.items():
        entry = section("reference/commands.md", f"`kalshi-fast {name}`")
        every = "every [setting]" in entry
        for action in commands.arguments(parser):
            assert action.help, f"kalshi-fast {name}: {action.dest} has no help"
            for flag in action.option_strings or [str(action.metavar or action.dest).upper()]:
                shown = re.search(rf"`{re.escape(str(flag))}(?![\w-])", entry) is not None
                assert shown or (every and flag in flags_of_settings), f"kalshi-fast {name} {flag}"


def test_every_metric_and_every_reason_is_documented() -> None:
    found = first_cells(page("metrics.md").partition("\n## Alerts\n")[0])
    assert found == [*(metric.name for metric in METRICS), *REASONS]
    assert all(metric.text for metric in METRICS)


def test_every_alert_is_documented_with_when_it_comes_and_what_to_do() -> None:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/kalshi-fast.rules.yml").read_text("utf-8"))["groups"]
    named = [rule for group in rules for rule in group["rules"]]
    rows = [line for line in section("metrics.md", "Alerts").splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == [rule["alert"] for rule in named] != []
    for rule, row in zip(named, rows, strict=True):
        assert f"| {rule['labels']['severity']} | `{rule['expr']}`" in row
        assert rule["annotations"]["description"] in row
        assert f" for {rule['for']} |" in row if "for" in rule else True
    known = {rule["alert"] for rule in named}
    for name, text in TEXTS.items():
        assert set(re.findall(r"\bKalshiFast[A-Z]\w+", text)) - {"KalshiFastError"} <= known, name


def test_every_table_view_and_column_is_documented(client: Client) -> None:
    found = schema.tables(client, DATABASE)
    assert found.keys() == {*migrations.tables(), *migrations.views()} == {*schema.TABLES, *schema.VIEWS}
    used = set()
    for table in found.values():
        entry = section(SCHEMA, f"`{table.name}`")
        assert first_cells(entry) == [column.name for column in table.columns] != []
        assert all(name in entry for name, _ in table.parameters)
        used |= {(table.name, column.name) for column in table.columns}
    assert meanings.SPECIAL.keys() <= used, "meanings without a column"
    assert meanings.COMMON.keys() <= {column for _, column in used}, "meanings without a column"
    for directory in HISTORIES:
        assert first_cells(section(SCHEMA, f"Parquet: `{directory}/`")) == SCHEMAS[directory].names


def test_every_error_is_documented() -> None:
    family, found = [KalshiFastError], first_cells(page("reference/errors.md"))
    for error in family:  # it grows
        family += [sub for sub in error.__subclasses__() if sub.__module__ == errors.__name__]
    assert sorted(found) == sorted({error.__name__ for error in family})
    assert all(inspect.getdoc(error) != inspect.getdoc(error.__bases__[0]) for error in family)


def test_every_public_name_is_documented() -> None:
    text = page("reference/api.md")
    for name in kalshi_fast.__all__:
        assert f"### `{name}`\n" in text or f"\n| `{name}` |" in text, name
        value = getattr(kalshi_fast, name)
        if not inspect.isclass(value) or issubclass(value, Exception):
            continue
        entry = section("reference/api.md", f"`{name}`")
        for member in (member for member in dir(value) if not member.startswith("_")):
            assert re.search(rf"^\| `{member}[:(]", entry, re.MULTILINE), f"{name}.{member}"
    assert not [name for name in api.ATTRIBUTES if f"`{name.partition('.')[2]}" not in text]


def test_the_example_of_the_errors_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", page("reference/errors.md"), re.MULTILINE | re.DOTALL)
    exec(compile(block, "errors.md", "exec"), {})
    assert capsys.readouterr().out.startswith("price_e4 4550 ")


# --- what the pages say -------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    headings = [
        heading
        for piece, is_text in website.outside_code(text)
        if is_text
        for heading in re.findall(r"^#+ (.*?)\s*$", piece, re.MULTILINE)
    ]
    return {website.slug(re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", heading)) for heading in headings}


@pytest.mark.parametrize("name", TEXTS)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in website.targets(TEXTS[name]):
        path, _, anchor = target.partition("#")
        to = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert to.is_relative_to(ROOT), f"{name}: {target} leads out of the repository"
        assert to.exists(), f"{name}: {target} leads nowhere"
        if anchor:
            assert to.suffix == ".md", f"{name}: {target}: only pages have headings"
            assert anchor in anchors(to.read_text("utf-8")), f"{name}: {target}: no such heading"


def test_every_page_has_its_place_on_the_site() -> None:
    def pages(nav: object) -> Iterator[str]:
        if isinstance(nav, str):
            yield nav
        elif isinstance(nav, list | dict):
            for part in nav.values() if isinstance(nav, dict) else nav:
                yield from pages(part)

    found = list(pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))["nav"]))
    assert len(found) == len(set(found))
    of_the_site = {name for name in TEXTS if name.startswith("docs/") or name in website.OWN}
    assert {website.page_of(name) for name in of_the_site} <= set(found)


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of every command of the blocks of a page: behind a `$` in console blocks, and in the others
    lines that begin with kalshi-fast."""
    for block in _BLOCK.finditer(text):
        lines = iter(block["body"].splitlines())
        for line in lines:
            if block["kind"] == "console" and line.startswith("$ "):
                line = line[2:]
            elif block["kind"] not in _SHELL or not re.match(r"(\S*/)?kalshi-fast( |$)", line):
                continue
            while (words := _words(line)) is None:
                line = f"{line}\n{next(lines)}"
            yield from words


def _words(line: str) -> list[list[str]] | None:
    """The commands of a line, without what redirects them; None: it goes on in the next one."""
    if line.endswith("\\"):
        return None
    lexer = shlex.shlex(line.replace("\\\n", " "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    try:
        for word in lexer:
            if set(word) <= set("|&;()"):
                commands.append([])
            elif set(word) <= set("<>"):
                commands.append([">"])
            else:
                commands[-1].append(word)
    except ValueError:
        return None
    return [command for command in commands if command]


def ours(words: list[str]) -> list[str] | None:
    """The arguments, when it is a command line of kalshi-fast."""
    while words and re.fullmatch(r"[A-Z_]+=.*|sudo|exec", words[0], re.DOTALL):
        words = words[1:]
    return words[1:] if words and words[0].rpartition("/")[2] == "kalshi-fast" else None


def parsed(parser: argparse.ArgumentParser, given: list[str]) -> tuple[object, str]:
    """What the command line would end with before anything is done, and what it would say."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            parser.parse_args(given)
        except SystemExit as end:
            return end.code, said.getvalue()
    return 0, ""


def test_every_command_line_can_be_given() -> None:
    seen, parser = 0, command_line()
    parsers = commands.subparsers(parser)
    for name, text in TEXTS.items():
        for words in command_lines(text):
            given = ours(words)
            if not given:
                continue
            seen += 1
            code, said = parsed(parser, given)
            assert code == 0, f"{name}: kalshi-fast {shlex.join(given)}: {said}"
            known = known_flags(parsers[given[0]]) if given[0] in parsers else {"--help", "--version"}
            used = {word.partition("=")[0] for word in given if re.match(r"--\w", word)}
            assert used <= known, f"{name}: kalshi-fast {shlex.join(given)}: abbreviated"
    assert seen > 25


def known_flags(parser: argparse.ArgumentParser) -> set[str]:
    return {"--help", *(flag for action in commands.arguments(parser) for flag in action.option_strings)}


def is_prose(word: str, more: list[str], flags: set[str]) -> bool:
    """Whether it is what the program says (`kalshi-fast needs Python …`), and no command that is wrong."""
    return bool(more) and not flags and not difflib.get_close_matches(word, commands.FAILURES)


def test_every_command_that_the_text_names_exists() -> None:
    seen, parsers = 0, commands.subparsers(command_line())
    for name, text in TEXTS.items():
        for piece, is_text in website.outside_code(text):
            for words in re.findall(r"`kalshi-fast ([^`]+)`", piece) if is_text else ():
                command, *more = words.split()
                flags = {flag.partition("=")[0] for flag in more if re.match(r"--\w", flag)}
                if command.startswith("-") or (command not in parsers and is_prose(command, more, flags)):
                    continue
                assert command in parsers, f"{name}: `kalshi-fast {words}`"
                assert flags <= known_flags(parsers[command]), f"{name}: `kalshi-fast {words}`"
                seen += 1
    assert seen > 25


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    used = {
        word
        for text in TEXTS.values()
        for words in command_lines(text)
        if words[0] == "make"
        for word in words[1:]
        if word.isalpha()
    }
    used |= {word for text in TEXTS.values() for word in re.findall(r"`make ([a-z]+)[^`]*`", text)}
    assert used
    assert used <= targets


def test_every_metric_that_the_text_names_exists() -> None:
    known = {metric.name for metric in METRICS}
    known |= {
        f"{m.name}_{part}" for m in METRICS if m.kind == "histogram" for part in ("bucket", "sum", "count")
    }
    for name, text in TEXTS.items():
        assert set(re.findall(r"\bkalshi_fast_[a-z_]+\b", text)) <= known, name


def test_no_setting_is_misspelled() -> None:
    known = {setting.name for setting in SETTINGS}
    for name, text in TEXTS.items():
        for word in set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text)) - known:
            assert not difflib.get_close_matches(word, known, cutoff=0.9), f"{name}: {word}"
