#!/usr/bin/env python3
"""What counts as a test of a rule, what became of it, and what is said about both."""

import io
import json
import os
import tempfile
import unittest

import contract

PAGE = """# What the loop promises

Some words about C-LOOP-99.

## 1. The loop
- C-LOOP-01 First come, first served.
- C-LOOP-02 (to come) Not yet.
- C-DBG-02 Does not compile. (T)

## 14. Datagrams (to come)
- C-DGM-01 One at a time.

## 16. Descriptors (in part)
- C-SCK-01 Two of them.
- D-2 Waits.
"""


def tests_of(text):
    return [(test.name, test.rules) for test in contract.read_tests("a_test.cc", text)]


class RulesTest(unittest.TestCase):
    def test_sections_and_rules_are_read_in_order(self):
        sections, rules = contract.read_rules(PAGE)
        self.assertEqual(
            sections, [("1", "The loop", ""), ("14", "Datagrams", "to come"), ("16", "Descriptors", "in part")]
        )
        self.assertEqual(
            [(rule.id, rule.section, rule.types, rule.required) for rule in rules],
            [
                ("C-LOOP-01", "1", False, True),
                ("C-LOOP-02", "1", False, False),
                ("C-DBG-02", "1", True, True),
                ("C-DGM-01", "14", False, False),
                ("C-SCK-01", "16", False, False),
                ("D-2", "16", False, False),
            ],
        )
        self.assertEqual(rules[2].text, "Does not compile.")

    def test_a_line_that_is_nearly_a_rule_is_told(self):
        for broken in ("- C-LOOP-1x No number.", "- Nothing.", "## Without a number", "- C-LOOP-01 Twice."):
            with self.subTest(broken=broken), self.assertRaises(ValueError):
                contract.read_rules(PAGE + broken + "\n")

    def test_the_page_itself_is_read(self):
        page = os.path.join(os.path.dirname(contract.__file__), "..", "..", contract.RULES)
        with open(page, encoding="utf-8") as file:
            sections, rules = contract.read_rules(file.read())
        self.assertEqual(len(sections), 24)
        self.assertGreater(len(rules), 200)


class TestsTest(unittest.TestCase):
    def test_the_comment_above_names_rules(self):
        self.assertEqual(
            tests_of(
                "// C-SRV-05\nTEST(A, B) {}\n"
                "// C-SRV-05, C-SRV-07: and why,\n// in two lines; P-4\nTEST_F(A, C) {}\n"
                "/* D-2 */\nTEST_P(A, D) {}\n"
                "// C-RD-01\nTYPED_TEST(A, E) {}\n"
                "// C-RD-02\nTYPED_TEST_P(\n    A,\n    F) {}\n"
            ),
            [
                ("A.B", ("C-SRV-05",)),
                ("A.C", ("C-SRV-05", "C-SRV-07", "P-4")),
                ("A.D", ("D-2",)),
                ("A.E", ("C-RD-01",)),
                ("A.F", ("C-RD-02",)),
            ],
        )

    def test_the_name_names_rules(self):
        self.assertEqual(
            tests_of("TEST(Loop, C_SRV_05_WaitsForAll) {}\nTEST(D_2, P_4AndMore) {}\nTEST(ABC_X_1, B) {}\n"),
            [("Loop.C_SRV_05_WaitsForAll", ("C-SRV-05",)), ("D_2.P_4AndMore", ("D-2", "P-4"))],
        )

    def test_other_comments_do_not_count(self):
        self.assertEqual(
            tests_of(
                "// Everything about C-SRV-01.\n#include <x>\n"
                "// C-SRV-02\n\nTEST(A, B) {}\n"
                "// C-SRV-03\nvoid Helper();\nTEST(A, C) {\n  // C-SRV-04\n}\n"
                "int x;  // C-SRV-05\nTEST(A, D) {}\n"
                "// C-SRV-06\nclass Fixture {};\n"
                "#define MY_TEST(a) TEST(A, a)  // C-SRV-07\n"
                'const char* text = R"(\n// C-SRV-08\nTEST(A, E) {}\n)";\n'
                "// C-SRV-09\n// TEST(A, F) {}\n"
            ),
            [],
        )

    def test_a_number_is_matched_whole(self):
        self.assertEqual(tests_of("// C-SRV-05a, XC-SRV-06, C-SRV-071, C-RD-02.\nTEST(A, B) {}\n"),
                         [("A.B", ("C-SRV-071", "C-RD-02"))])  # fmt: skip

    def test_a_static_assert_is_a_test_without_a_name(self):
        found = contract.read_tests("a_test.cc", "\n// C-DBG-02\nstatic_assert(!Callable<int>);\nstatic_assert(true);\n")
        self.assertEqual(found, [("a_test.cc", 3, None, ("C-DBG-02",))])

    def test_packages_of_tests(self):
        tests = [contract.Test(path, 1, "A.B", ("D-2",)) for path in ("b/x_test.cc", "a/c/y_test.cc", "b/z_test.cc")]
        self.assertEqual(contract.targets(tests), ["//a/c:all", "//b:all"])


def case(suite, name, inner="", status="run", result="completed", **more):
    extra = "".join(' %s="%s"' % item for item in more.items())
    return '<testcase name="%s" classname="%s" file="a_test.cc" line="1" status="%s" result="%s"%s>%s</testcase>' % (
        name, suite, status, result, extra, inner)  # fmt: skip


def suites(*cases):
    return '<?xml version="1.0" encoding="UTF-8"?><testsuites><testsuite>%s</testsuite></testsuites>' % "".join(cases)


class OutcomesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def read(self, *cases):
        return [(name, outcome) for _, name, outcome in contract.read_outcomes(suites(*cases))]

    def test_instances_are_joined_with_their_source(self):
        self.assertEqual(
            self.read(
                case("A", "Plain"),
                case("Polling/A", "Each/strict", value_param="1"),
                case("A", "Unnamed/0", value_param="1"),
                case("Typed/0", "X", type_param="int"),
            ),
            [
                ("A.Plain", "passed"),
                ("A.Each", "passed"),
                ("A.Unnamed", "passed"),
                ("Typed.X", "passed"),
                ("Typed.X", "passed"),
            ],
        )
        self.assertIn(("Typed.X", "passed"), self.read(case("Typed/Named", "X", type_param="int")))
        self.assertIn(("Typed.X", "passed"), self.read(case("Kinds/Typed/0", "X", type_param="int")))
        self.assertIn(("Typed.X", "passed"), self.read(case("Kinds/Typed/Named", "X", type_param="int")))

    def test_what_did_not_run_has_not_passed(self):
        self.assertEqual(
            self.read(
                case("A", "DISABLED_B", status="notrun", result="suppressed"),
                case("A", "Skipped", "<skipped/>", result="skipped"),
                case("A", "Filtered", status="notrun", result="suppressed"),
                case("A", "Failed", "<failure/>"),
            ),
            [
                ("A.DISABLED_B", "did not run"),
                ("A.Skipped", "did not run"),
                ("A.Filtered", "did not run"),
                ("A.Failed", "failed"),
            ],
        )

    def test_what_bazel_writes_for_a_crashed_test_names_none(self):
        crashed = '<testsuites><testsuite name="x"><testcase name="a/x" status="run"><error/></testcase></testsuite>'
        self.assertEqual(list(contract.read_outcomes(crashed + "</testsuites>")), [])
        self.assertEqual(list(contract.read_outcomes(suites(case("A", "B"))[:90])), [])

    def write_xml(self, name, *cases):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(suites(*cases))
        return path

    def result(self, label, path, **identity):
        return {
            "id": {"testResult": {"label": label, "run": 1, "shard": 1, "attempt": 1, **identity}},
            "testResult": {"testActionOutput": [{"name": "test.log", "uri": "file:///x"},
                                                {"name": "test.xml", "uri": "file://" + path.replace(" ", "%20")}]},
        }  # fmt: skip

    def outcomes(self, **runs):
        with open(os.path.join(self.folder, "runs"), "w", encoding="utf-8") as file:
            file.write("".join("%s 0 1\n" % name for name in runs))
        for name, events in runs.items():
            with open(os.path.join(self.folder, name + ".json"), "w", encoding="utf-8") as file:
                file.write("".join(json.dumps(event) + "\n" for event in events))
        outcomes = contract.Outcomes()
        outcomes.add_runs(self.folder)
        return lambda name: outcomes.of(contract.Test("a_test.cc", 1, name, ()))

    def test_a_test_must_fail_in_no_run_and_pass_in_one(self):
        of = self.outcomes(
            gcc=[self.result("//a:x", self.write_xml("1 gcc", case("A", "B"), case("A", "C"), case("A", "E", result="skipped")))],
            clang=[self.result("//a:x", self.write_xml("2", case("A", "B", "<failure/>"), case("A", "E")))],
            tsan=[self.result("//a:x", self.write_xml("3", case("A", "B")))],
        )  # fmt: skip
        self.assertEqual([of(name) for name in ("A.B", "A.C", "A.D", "A.E", None)],
                         ["failed", "passed", "did not run", "passed", "passed"])  # fmt: skip

    def test_one_instance_that_fails_fails_the_test(self):
        of = self.outcomes(gcc=[self.result("//a:x", self.write_xml("1", case("P/A", "B/strict", "<failure/>"),
                                                                    case("P/A", "B/shared")))])  # fmt: skip
        self.assertEqual(of("A.B"), "failed")

    def test_shards_are_added_up_and_the_last_attempt_counts(self):
        of = self.outcomes(
            gcc=[
                self.result("//a:x", self.write_xml("2", case("A", "B")), attempt=2),
                self.result("//a:x", self.write_xml("1", case("A", "B", "<failure/>"))),
                self.result("//a:x", self.write_xml("3", case("A", "C")), shard=2),
                self.result("//a:y", os.path.join(self.folder, "gone")),
                {"id": {"testSummary": {"label": "//a:x"}}},
            ]
        )
        self.assertEqual([of("A.B"), of("A.C"), of("A.D")], ["passed", "passed", "did not run"])

    def test_a_static_assert_needs_its_source_to_have_been_compiled(self):
        self.assertEqual(self.outcomes(gcc=[])(None), "did not run")
        skipped = self.write_xml("1", case("A", "B", status="notrun", result="suppressed"))
        self.assertEqual(self.outcomes(gcc=[self.result("//a:x", skipped)])(None), "did not run")


class ReportTest(unittest.TestCase):
    def report(self, *tests):
        """tests: (name, rules, outcome)."""
        outcomes = contract.Outcomes()
        found = []
        for line, (name, rules, outcome) in enumerate(tests, 1):
            found.append(contract.Test("a_test.cc", line, name, rules))
            outcomes.add("a_test.cc", name or "A.Any", outcome)
        out = io.StringIO()
        sections, rules = contract.read_rules(PAGE)
        return contract.report(sections, rules, found, outcomes, out), out.getvalue()

    def test_rules_are_counted_by_section(self):
        broken, text = self.report(
            ("A.B", ("C-LOOP-01", "C-DBG-02"), "passed"),
            ("A.C", ("C-LOOP-01", "C-SCK-01"), "passed"),
        )
        self.assertEqual(broken, 0)
        self.assertEqual(
            [" ".join(line.split()) for line in text.splitlines()],
            [
                "the loop's contract rules with a test tests passed",
                "1. The loop 3 2 2 2",
                "14. Datagrams 1 0 0 0 to come",
                "16. Descriptors 2 1 1 1 in part",
                "",
                "not required yet, and without a test that passed:",
                "1. C-LOOP-02",
                "14. C-DGM-01",
                "16. D-2",
                "",
                "2 of 2 required rules kept",
            ],
        )

    def test_what_is_required_and_missing_is_named_and_fails(self):
        broken, text = self.report(("A.B", ("C-LOOP-01",), "did not run"))
        self.assertEqual(broken, 2)
        self.assertIn("C-LOOP-01 A.B did not run: First come, first served.", text)
        self.assertIn("C-DBG-02  has no test: Does not compile.", text)
        self.assertIn("0 of 2 required rules kept", text)

    def test_one_test_of_several_that_fails_breaks_the_rule(self):
        broken, text = self.report(
            ("A.B", ("C-LOOP-01", "C-DBG-02"), "passed"),
            ("A.C", ("C-LOOP-01",), "failed"),
        )
        self.assertEqual(broken, 1)
        self.assertIn("C-LOOP-01 A.C failed", text)

    def test_a_failing_test_of_a_rule_to_come_is_told_as_well(self):
        broken, text = self.report(
            ("A.B", ("C-LOOP-01", "C-DBG-02"), "passed"),
            ("A.C", ("C-DGM-01",), "failed"),
        )
        self.assertEqual(broken, 1)
        self.assertIn("C-DGM-01  A.C failed", text)
        self.assertIn("2 of 2 required rules kept", text)

    def test_a_static_assert_holds_rules_of_types_only(self):
        broken, text = self.report((None, ("C-DBG-02", "C-LOOP-01"), "passed"))
        self.assertEqual(broken, 1)
        self.assertIn("C-LOOP-01 has no test", text)
        self.assertNotIn("C-DBG-02", text)

    def test_a_number_that_is_no_rule_is_a_mistake(self):
        broken, text = self.report(("A.B", ("C-LOOP-01", "C-DBG-02", "C-LOOP-99"), "passed"))
        self.assertEqual(broken, 1)
        self.assertIn("C-LOOP-99 is no rule: a_test.cc:1", text)


if __name__ == "__main__":
    unittest.main()
