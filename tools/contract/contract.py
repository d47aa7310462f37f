#!/usr/bin/env python3
"""Prints which rules of the loop's contract have tests, and what became of them.

usage: contract.py TREE FOLDER    FOLDER: build events of Bazel runs, as tools/totals takes them
       contract.py TREE --targets the packages whose tests name rules

The rules are those of framework/CONTRACT.md. A test names the rules that it holds in the comment right above it, or in
its own name (C_SRV_05); a static_assert may hold a rule that is marked (T). What became of a test is read from the XML
that it left in the runs: it has passed if it ran somewhere, and failed nowhere. A rule is kept if it has a test and all
its tests have passed.

Exits 1 if a rule is not kept that has to be, or if a test names a rule that does not exist.
"""

import collections
import os
import re
import sys
import urllib.parse
import urllib.request
import xml.etree.ElementTree

_TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir)
sys.path += [os.path.join(_TOOLS, "lint"), os.path.join(_TOOLS, "totals")]

import lint
import totals

RULES = "framework/CONTRACT.md"

_ID = r"(?:C-[A-Z]+-\d+|[DP]-\d+)"
_SECTION = re.compile(r"## (\d+)\. (.*?)( \((?:to come|in part)\))?$")
_RULE = re.compile(r"- (%s)( \(to come\))? (.*)$" % _ID)
_NAMED = re.compile(r"\b%s\b" % _ID)
_NAMED_IN_NAME = re.compile(r"(?<![A-Za-z0-9])(?:C_[A-Z]+_\d+|[DP]_\d+)(?![0-9])")

# At the beginning of a line, so that neither a macro's definition nor an assertion within one counts.
_TEST = re.compile(
    r"^[ \t]*(?:(?:TEST|TEST_F|TEST_P|TYPED_TEST|TYPED_TEST_P)\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)|static_assert\s*\()",
    re.MULTILINE,
)

Rule = collections.namedtuple("Rule", "id text section types required")
Section = collections.namedtuple("Section", "number title mark")
# name: "Suite.Test" as it stands in the source, or None for a static_assert.
Test = collections.namedtuple("Test", "path line name rules")

PASSED, FAILED, NOT_RUN = "passed", "failed", "did not run"


def read_rules(text):
    """Returns (sections, rules), each in the order of the page."""
    sections = []
    rules = []
    for line in text.splitlines():
        if line.startswith("## "):
            match = _SECTION.match(line)
            if not match:
                raise ValueError("not a section: " + line)
            sections.append(Section(match[1], match[2], (match[3] or "").strip(" ()")))
        elif line.startswith("- "):
            match = _RULE.match(line)
            if not match:
                raise ValueError("not a rule: " + line)
            if any(rule.id == match[1] for rule in rules):
                raise ValueError("stands twice: " + match[1])
            section = sections[-1]
            text = match[3]
            types = text.endswith(" (T)")
            required = not section.mark and not match[2]
            rules.append(Rule(match[1], text[:-4] if types else text, section.number, types, required))
    return sections, rules


def read_tests(path, text):
    """Returns the tests of a C++ source that name rules, in order."""
    source = lint.Source(path, text)
    tests = []
    for match in _TEST.finditer(source.code):
        line = source.line_of(match.start())
        named = _NAMED.findall(_comment_above(source, line))
        name = None
        if match[1]:
            name = match[1] + "." + match[2]
            named += [found.replace("_", "-") for found in _NAMED_IN_NAME.findall(name)]
        if named:
            tests.append(Test(path, line, name, tuple(dict.fromkeys(named))))
    return tests


def _comment_above(source, line):
    """The comment that ends right above a line."""
    first = line
    while first > 1 and source.lines[first - 2].strip() and not source.code_lines[first - 2].strip():
        first -= 1
    return "\n".join(source.lines[first - 1 : line - 1])


def find_tests(tree):
    """Returns the tests of all sources that name rules, in order of path and line."""
    tests = []
    for path in lint.walk(tree):
        if path.endswith((".cc", ".h")):
            with open(os.path.join(tree, path), encoding="utf-8") as file:
                tests += read_tests(path, file.read())
    return sorted(tests, key=lambda test: (test.path, test.line))


def source_name(suite, name):
    """How the source names a test that ran: "Polling/FutureTest" "X/strict" is FutureTest.X, "TypedTest/0" "X" is
    TypedTest.X, and "Kinds/TypedTest/0" "X" too."""
    parts = suite.split("/")
    if len(parts) > 1 and not re.match(r"[A-Za-z_]\w*$", parts[-1]):
        parts.pop()  # the type's number; types that have names are told apart by the caller
    return parts[-1] + "." + name.split("/")[0]


def read_outcomes(xml_text):
    """Yields (path, "Suite.Test", outcome) of each test in the XML that GoogleTest wrote."""
    try:
        root = xml.etree.ElementTree.fromstring(xml_text)
    except xml.etree.ElementTree.ParseError:
        return  # cut short: whatever it would have said has not been said
    for case in root.iter("testcase"):
        if "file" not in case.attrib:
            continue  # Bazel's own, in place of what a crashed test did not write
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = FAILED
        elif case.get("status") == "run" and case.get("result") == "completed":
            outcome = PASSED
        else:
            outcome = NOT_RUN  # disabled, or skipped
        # A typed test's suite may end in the name of a type, which is no number: both readings are given.
        suite = case.get("classname", "")
        yield case.get("file"), source_name(suite, case.get("name", "")), outcome
        if case.get("type_param") is not None and "/" in suite:
            yield case.get("file"), source_name(suite.rsplit("/", 1)[0], case.get("name", "")), outcome


def xml_files(events):
    """Returns the paths of the XML files of a run's last attempt at each test and shard."""
    files = {}
    for event in events:
        identity = event.get("id", {}).get("testResult")
        if identity is None:
            continue
        for output in event.get("testResult", {}).get("testActionOutput", ()):
            if output.get("name") == "test.xml" and output.get("uri", "").startswith("file://"):
                key = (identity["label"], identity.get("run"), identity.get("shard"))
                path = urllib.request.url2pathname(urllib.parse.urlsplit(output["uri"]).path)
                attempt = identity.get("attempt", 1)
                if attempt >= files.get(key, (0, ""))[0]:
                    files[key] = (attempt, path)
    return [path for _, path in files.values()]


class Outcomes:
    """What became of the tests of all runs."""

    def __init__(self):
        self._tests = {}
        self._built = set()  # sources of which something ran

    def add(self, path, name, outcome):
        known = self._tests.get((path, name), NOT_RUN)
        if FAILED in (known, outcome):
            known = FAILED
        elif PASSED in (known, outcome):
            known = PASSED
        self._tests[path, name] = known
        if outcome != NOT_RUN:
            self._built.add(path)

    def add_runs(self, folder):
        with open(os.path.join(folder, "runs"), encoding="utf-8") as lines:
            names = [line.split()[0] for line in lines if line.strip()]
        for name in names:
            for path in xml_files(totals.read_events(os.path.join(folder, name + ".json"))):
                if os.path.exists(path):
                    with open(path, encoding="utf-8", errors="replace") as file:
                        for outcome in read_outcomes(file.read()):
                            self.add(*outcome)

    def of(self, test):
        """A static_assert holds if its source was compiled, which it was if one of its tests ran."""
        if test.name is None:
            return PASSED if test.path in self._built else NOT_RUN
        return self._tests.get((test.path, test.name), NOT_RUN)


def _describe(test):
    return test.name or "static_assert at %s:%d" % (test.path, test.line)


def report(sections, rules, tests, outcomes, out):
    """Writes the report. Returns how many rules are not kept that have to be, or are named and do not exist."""
    tests_of = collections.defaultdict(list)
    for test in tests:
        for rule in test.rules:
            tests_of[rule].append(test)

    wrong = []
    to_come = {section.number: {} for section in sections}
    rows = []
    for section in sections:
        own = [rule for rule in rules if rule.section == section.number]
        having = 0
        counted = set()
        passed = set()
        for rule in own:
            candidates = [test for test in tests_of[rule.id] if test.name is not None or rule.types]
            troubles = ["%s %s" % (_describe(test), outcomes.of(test)) for test in candidates
                        if outcomes.of(test) != PASSED]  # fmt: skip
            having += bool(candidates)
            counted.update(candidates)
            passed.update(test for test in candidates if outcomes.of(test) == PASSED)
            if not candidates:
                troubles = ["has no test"]
            for trouble in troubles:
                # A test that fails is a failure wherever it stands.
                if rule.required or trouble.endswith(FAILED):
                    wrong.append((rule, trouble))
                else:
                    to_come[section.number][rule.id] = None
        rows.append((section, len(own), having, len(counted), len(passed)))

    known = {rule.id for rule in rules}
    unknown = [(test, name) for test in tests for name in test.rules if name not in known]

    width = max(len("%s. %s" % (section.number, section.title)) for section in sections)
    out.write("%-*s  rules  with a test  tests  passed\n" % (width, "the loop's contract"))
    for section, count, having, counted, passed in rows:
        title = "%s. %s" % (section.number, section.title)
        out.write("%-*s %6d %12d %6d %7d%s\n"
                  % (width, title, count, having, counted, passed, "  " + section.mark if section.mark else ""))  # fmt: skip
    if any(to_come.values()):
        out.write("\nnot required yet, and without a test that passed:\n")
        for number, names in to_come.items():
            if names:
                out.write("  %3s. %s\n" % (number, ", ".join(names)))
    if wrong or unknown:
        out.write("\nmissing:\n")
        for rule, trouble in wrong:
            out.write("  %-9s %s: %s\n" % (rule.id, trouble, rule.text))
        for test, name in unknown:
            out.write("  %-9s is no rule: %s:%d\n" % (name, test.path, test.line))
    required = [rule for rule in rules if rule.required]
    broken = {rule.id for rule, _ in wrong if rule.required}
    out.write("\n%d of %d required rules kept\n" % (len(required) - len(broken), len(required)))
    return len({rule.id for rule, _ in wrong}) + len(unknown)


def targets(tests):
    """The packages of tests that name rules, as patterns for Bazel."""
    return sorted({"//%s:all" % os.path.dirname(test.path) for test in tests})


def main(arguments):
    tree = arguments[1]
    with open(os.path.join(tree, RULES), encoding="utf-8") as file:
        sections, rules = read_rules(file.read())
    tests = find_tests(tree)
    if arguments[2] == "--targets":
        print("\n".join(targets(tests)))
        return 0
    outcomes = Outcomes()
    outcomes.add_runs(arguments[2])
    return 1 if report(sections, rules, tests, outcomes, sys.stdout) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
