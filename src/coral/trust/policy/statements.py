"""A file of Cedar policies as its policies, each with the line that it begins on. Cedar's own errors have no position.

Lexical rules: https://docs.cedarpolicy.com/policies/syntax-grammar.html. Each policy ends with a semicolon; strings are in
double quotes with backslash escapes; comments go from ``//`` to the end of the line.

Cedar's parser recurses over what it reads, on the stack of the thread that calls it: deeply nested text ends the process. So
the nesting and the length of a policy are bounded here, far below what that takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_STATEMENT_BYTES = 8192
MAX_NESTING = 50

_TOKEN = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"|"|\bif\b|[()\[\]{};]|\S', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One policy as it is written.

    Attributes:
        line: Where it begins, from 1.
        text: From its first character to its semicolon.
        fault: Why it is not to be parsed; empty if it may be.
    """

    line: int
    text: str
    fault: str = ""

    def line_of(self, message: str) -> int:
        """The line that an error message is about: where what it quotes in backticks stands, if that is one line alone."""
        lines = self.text.splitlines()
        for quoted in re.findall(r"`([^`]+)`", message):
            found = [number for number, line in enumerate(lines) if quoted in line]
            if len(found) == 1:
                return self.line + found[0]
        return self.line


def statements(text: str) -> Iterator[Statement]:
    """The policies of a text, in order, each with its fault if it has one; what follows the last semicolon has."""
    start: int | None = None
    depth = branches = 0
    line, counted = 1, 0
    fault = ""
    for token in _TOKEN.finditer(text):
        word = token.group()
        if word.startswith("//"):
            continue
        if start is None:
            start, depth, branches, fault = token.start(), 0, 0, ""
            line, counted = line + text.count("\n", counted, start), start
        if word == '"':
            fault = fault or "a string is not closed"
        depth += (word in "([{") - (word in ")]}")
        branches += word == "if"
        if depth > MAX_NESTING or branches > MAX_NESTING:
            fault = fault or f"it is nested more than {MAX_NESTING} deep"
        if word == ";":
            yield _statement(text[start : token.end()], line, fault)
            start = None
    if start is not None:
        yield _statement(text[start:], line, fault or "it does not end with a semicolon")


def _statement(policy: str, line: int, fault: str) -> Statement:
    if len(policy.encode(errors="surrogatepass")) > MAX_STATEMENT_BYTES:
        fault = fault or f"it has more than {MAX_STATEMENT_BYTES:,} bytes"
    return Statement(line=line, text=policy, fault=fault)
