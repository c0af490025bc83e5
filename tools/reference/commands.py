"""docs/reference/commands.md: every command and flag of the parsers in ``kalshi_fast.commands``.

Not here: the settings, which most commands take as flags (``settings``).
"""

from __future__ import annotations

import argparse
import textwrap
from typing import Final

from kalshi_fast.commands.parser import parser
from kalshi_fast.config import SETTINGS
from tools.reference.markdown import code, page, sentence, table
from tools.reference.settings import flags

# What 1 means where a command has something of its own to say; else: that the work failed, and why on stderr.
FAILURES: Final[dict[str, str]] = {
    "run": "a store refused rows to the end; the journal keeps them for the next `run`",
    "demo": "a number disagrees",
    "simulate": "the play fails",
    "watch": "the file of `--log` cannot be written",
    "top": "no recording answers at this address",
    "markets": "the exchange does not answer, or not as it must",
    "query": "ClickHouse refuses the statement, or does not answer",
    "replay": "the recording cannot be read as it is, or `--verify` has found what cannot be true",
    "compact": "files of some date could not be merged; they stay as they are",
    "import": "a file cannot be taken over; nothing of it was written",
    "reread": "a store does not take the rows; the journal keeps them",
    "export": "what was asked for is not there, or a file is in the way",
    "plot": "what was asked for is not there",
    "sql": "ClickHouse does not answer, or refuses a statement",
    "check": "at least one check has failed",
    "bench": "a result is wrong, so that its time says nothing",
    "config": "",
}

_HEAD: Final = """
```console
$ kalshi-fast --help
$ kalshi-fast run --help
```

shows the same. Figures go to stdout; progress, warnings and errors to stderr. With `--json` the figures are
JSON: one object on the last line, or what the flag's help says.

## Exit codes

| code | meaning |
|---|---|
| 0 | done; also after Ctrl-C or SIGTERM, once everything buffered has been delivered |
| 1 | the work failed; each command below says what that means |
| 2 | the configuration is wrong: a flag, a setting, a refused key, a database that is not ours |
| 130 | interrupted before it began |

What a failure says is one sentence on stderr; [errors](errors.md) has the kinds."""


def subparsers(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, by name, in order."""
    for action in top._actions:  # noqa: SLF001 - argparse has no public way to read a parser
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    """Everything that a command takes, but for ``--help``."""
    return [action for action in command._actions if action.dest != "help"]  # noqa: SLF001


def is_setting(action: argparse.Action) -> bool:
    """Whether it is another way to give a setting."""
    return action.dest.isupper() and action.option_strings != []


def document() -> str:
    """The page."""
    top = parser()
    summaries = {
        choice.dest: choice.help or ""
        for action in top._actions  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        for choice in action._choices_actions  # noqa: SLF001
    }
    commands = subparsers(top)
    overview = table(
        ("command", ""), [(f"[`{name}`](#kalshi-fast-{name})", summaries[name]) for name in commands]
    )
    return page("Commands", _HEAD, overview, *(_command(name, one) for name, one in commands.items()))


def _command(name: str, command: argparse.ArgumentParser) -> str:
    own = [action for action in arguments(command) if not is_setting(action)]
    parts = [
        f"## `kalshi-fast {name}`",
        sentence(command.description or "Shows every setting, its value, and where that came from."),
        f"```text\n{_synopsis(name, own)}\n```",
        table(("argument", "meaning"), [(_names(action), _help(action)) for action in own]),
        _settings([action for action in arguments(command) if is_setting(action)]),
        f"Ends with 1 when {FAILURES[name]}." if FAILURES[name] else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _synopsis(name: str, own: list[argparse.Action]) -> str:
    parts = [_usage(action).replace(" ", "\0") for action in own]  # a flag stays with its value
    lines = textwrap.wrap(" ".join([f"kalshi-fast\0{name}", *parts]), 100, subsequent_indent=" " * 4)
    return "\n".join(lines).replace("\0", " ")


def _settings(given: list[argparse.Action]) -> str:
    """Links to the settings that are flags here; where all of them are, to those with other names here."""
    links: dict[str, list[str]] = {}
    for action in given:
        links.setdefault(action.dest, []).extend(map(code, action.option_strings))
    usual = {setting.name: list(map(code, flags(setting))) for setting in SETTINGS if flags(setting)}
    if links.keys() == usual.keys():
        links = {name: [flag for flag in given if flag not in usual[name]] for name, given in links.items()}
        text = "Takes every [setting](settings.md) as a flag, passwords excepted"
    else:
        text = "Takes these settings as flags"
    told = "; ".join(
        f"[{', '.join(names)}](settings.md#{name.lower()})" for name, names in links.items() if names
    )
    return f"{text}{f': {told}' if told else ''}." if given else ""


def _value(action: argparse.Action) -> str:
    """What stands for the value, or nothing when there is none."""
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        return ""
    if isinstance(action.metavar, str):
        shown = action.metavar
    elif action.choices is not None:
        shown = "|".join(map(str, action.choices))
    else:
        shown = action.dest.upper().replace("-", "_")
    return f"{shown} …" if action.nargs in ("*", "+") else shown


def _usage(action: argparse.Action) -> str:
    if not action.option_strings:
        return _value(action) if action.nargs in (None, "+") else f"[{_value(action)}]"
    text = f"{action.option_strings[0]} {_value(action)}".rstrip()
    return text if action.required else f"[{text}]"


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return code(_value(action))
    return ", ".join(code(f"{flag} {_value(action)}".rstrip()) for flag in action.option_strings)


def _help(action: argparse.Action) -> str:
    choices = ", ".join(map(str, action.choices or ()))
    text = (action.help or "") % {**vars(action), "prog": "kalshi-fast", "choices": choices}
    missing = [f"`{choice}`" for choice in map(str, action.choices or ()) if choice not in text]
    return f"{text}; one of {', '.join(missing)}" if missing and len(missing) > 1 else text
