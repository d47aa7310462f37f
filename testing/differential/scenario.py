"""Scenarios: their language, read into statements.

A file holds scenarios, each begun by "=== NAME". A statement is a line of words; where it has blocks they stand in
braces, and words between them begin the next part:

    try {
      sleep 1
    } catch cancelled {
      log caught
    }

is one statement of two parts. ";" ends a statement as the end of a line does. "#" begins a comment. Lines that begin
with "|" are the trace that Troupe is to give where it differs on purpose from asyncio, and "differs" says why.
"""

import collections
import re

Scenario = collections.namedtuple("Scenario", "name differs expected text statements")
# parts: [(words, block or None)]; a block is a list of statements.
Statement = collections.namedtuple("Statement", "words block parts")

_TOKEN = re.compile(r"\n|;|\{|\}|[^\s;{}]+")


def parse_block(tokens):
    """Reads statements up to the brace that closes the block, or the end."""
    statements = []
    parts = []
    words = []

    def end():
        nonlocal parts, words
        if words:
            parts.append((words, None))
        if parts:
            statements.append(Statement(parts[0][0], parts[0][1], parts))
        parts, words = [], []

    while tokens:
        token = tokens.popleft()
        if token == "{":
            parts.append((words, parse_block(tokens)))
            words = []
        elif token == "}":
            break
        elif token in "\n;":
            end()
        else:
            words.append(token)
    end()
    return statements


def parse(text):
    """Reads a file of scenarios."""
    scenarios = []
    for chunk in re.split(r"^=== ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = chunk.partition("\n")
        differs = ""
        expected = []
        lines = []
        for line in rest.split("\n"):
            if line.startswith("differs "):
                differs = line[len("differs ") :]
            elif line.startswith("|"):
                expected.append(line[1:])
            else:
                lines.append(re.sub(r"(^|\s)#.*", "", line))
        body = "\n".join(lines)
        scenarios.append(
            Scenario(name.strip(), differs, expected, body, parse_block(collections.deque(_TOKEN.findall(body))))
        )
    return scenarios
