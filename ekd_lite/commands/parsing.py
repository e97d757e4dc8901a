"""The command line into a command; what is wrong with it, in one line."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import tyro

from ekd_lite.ops import nearest_name

PROGRAM = "ekd-lite"
_ALIASES = {"--model": "--source"}  # of evaluate; no other command has both
_SAYS = {  # what tyro and Python say of a value -> in the user's words
    r"invalid literal for int\(\) with base 10: (.*)": r"expected a whole number, got \1",
    r"could not convert string to float: (.*)": r"expected a number, got \1",
    r"Could not find valid parse for arguments: \[(.*)\]": r"cannot be read from \1",
    r"no type matching (\{None\}\|)?\{(.*?)\} could be instantiated from \[(.*?)\].*": (
        r"expected \2, got \3"
    ),
    r"Missing value for argument '(.*?)'\..*": r"\1 needs a value",
    r"^invalid choice (.*?) for argument '(.*?)'\. Expected one of \((.*)\)\.": (
        r"\2 is one of \3, got \1"
    ),
    r"Error parsing (.*)": r"\1",
    r"'None', |, 'None'": "",  # of an option that is left out: nothing to type
    r"Expected one of \{(.*?) ?\}[ .]*": r"name a command, one of \1",
}


def parse(commands: Any, arguments: Sequence[str], **options: Any) -> Any:
    """What `tyro.cli` makes of the arguments.

    Args:
        commands: what it takes.
        arguments: of the command line.
        options: more for it.

    Raises:
        ValueError: they are wrong; its message is one line.
        SystemExit: help was asked for, and printed.
    """
    _refuse_empty(arguments)
    _refuse_twice(arguments)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(commands, args=arguments, prog=PROGRAM, **options)
    except SystemExit as error:
        if error.code in (0, None):
            raise
    box = said.getvalue()
    sections = _sections(box)
    raise ValueError(
        _missing(box) or _unknown(commands, arguments, sections, options) or _said(sections)
    )


def _refuse_empty(arguments: Sequence[str]) -> None:
    """`--out "$OUT"` without OUT would be the folder where one stands."""
    for before, argument in pairwise(["", *arguments]):
        name, equals, value = argument.partition("=")
        if not (value if equals and name.startswith("--") else argument).strip():
            option = name if equals else before if before.startswith("--") else "an argument"
            raise ValueError(f"{option} has an empty value; is a variable of the shell not set?")


def _refuse_twice(arguments: Sequence[str]) -> None:
    """Of `--fprs 0.1 --fprs 0.2` the parser would keep the last one, and say nothing."""
    typed: dict[str, str] = {}
    for argument in itertools.takewhile("--".__ne__, arguments):
        if not argument.startswith("--"):
            continue
        name = argument.partition("=")[0].replace("_", "-")
        option = _ALIASES.get(name, name.replace("--no-", "--", 1))
        if option in typed:
            both = f"{typed[option]} and {name} are one option, which"
            raise ValueError(
                f"{name if typed[option] == name else both} stands twice: give it once; of an "
                "option that takes several values they stand one after the other"
            )
        typed[option] = name


def _sections(box: str) -> list[str]:
    """The parts of a message that tyro draws as a box, a line each, without the frame and title."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        text = line.strip("│| ")
        if text.startswith(("╭", "╰")):
            continue
        if text and not text.strip("─-"):
            parts.append([])
        else:
            parts[-1].append(text)
    if "╭" not in box:  # drawn for terminals without such letters: the title is a part
        del parts[0]
    return [text for part in parts if (text := " ".join(filter(None, part)))]


def _missing(box: str) -> str:
    """Which options a command lacks, without their help, which is indented more; "" if none."""
    command, _, rest = box.partition("Missing from ")[2].partition(":")
    lines = [line.strip("│|").rstrip() for line in rest.partition("For full help")[0].splitlines()]
    lines = [line for line in lines if line.strip("─- ")]
    least = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    names = [line.strip() for line in lines if line[least : least + 1].strip()]
    needs = ", ".join(name.replace(", ", " or ") for name in names)
    return f"missing from {command}: {needs}; `{command} --help` tells more" if names else ""


def _said(sections: Sequence[str]) -> str:
    """The part that tells what is wrong; the others repeat the help."""
    text = sections[0] if sections else "the command line cannot be read"
    for pattern, words in _SAYS.items():
        text = re.sub(pattern, words, text)
    return re.sub(r"^(--[a-z-]+): (takes|cannot)", r"\1 \2", text)


def _unknown(
    commands: Any, arguments: Sequence[str], sections: Sequence[str], options: dict[str, Any]
) -> str:
    """What to say of an option or a command that there is none of; "" if that is not the matter."""
    found = re.search(r"Unrecognized (?:or misplaced )?options: *(\S+)", " ".join(sections))
    if found is None:
        return ""
    # As it was typed: the box may have broken it, or put a comma behind it.
    start = found[1].rstrip(",")
    token = next((a for a in arguments if a == start), None) or next(
        (a for a in arguments if a.startswith(start)), start
    )
    command = [a for a in arguments[: 2 if arguments[:1] == ["data"] else 1] if a[:1] != "-"]
    if not token.startswith("-"):
        known = re.search(r"Available subcommands: (.*)", "\n".join(sections))
        if known is not None:
            if difflib.get_close_matches(token.lower(), ["help"], cutoff=0.7):
                usage = f"`{_help(command[:-1])}`? known: {known[1]}"
                return f"unknown command {token!r}; did you mean {usage}"
            return f"unknown command {token!r}{nearest_name(token, known[1].split(', '))}"
        return f"{token!r} is one argument too many: `{_help(command)}` tells which there are"
    name = token.partition("=")[0]
    there = _options(commands, command, options)
    near = difflib.get_close_matches(name.replace("_", "-"), there, n=1, cutoff=0.7)
    guess = f"; did you mean {near[0]}?" if near else ";"
    return f"unknown option {name}{guess} `{_help(command)}` lists them"


def _options(commands: Any, command: Sequence[str], options: dict[str, Any]) -> list[str]:
    """The options of a command, from its help."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        tyro.cli(commands, args=[*command, "--help"], prog=PROGRAM, **options)
    return sorted(set(re.findall(r"--[a-z][a-z0-9-]+", text.getvalue())))


def _help(command: Sequence[str]) -> str:
    return " ".join([PROGRAM, *command, "--help"])
