#!/usr/bin/env python3
"""What Bazel 4.2.3 writes about passing, failing, flaky and broken targets, and what is counted of it."""

import io
import json
import os
import tempfile
import unittest

import totals


def summary(label, status):
    return {"id": {"testSummary": {"label": label}}, "testSummary": {"overallStatus": status}}


def completed(label, success=True):
    return {"id": {"targetCompleted": {"label": label}}, "completed": {"success": True} if success else {}}


def aborted(label, reason):
    return {"id": {"targetCompleted": {"label": label}}, "aborted": {"reason": reason}}


class CountTest(unittest.TestCase):
    def test_tests_are_counted_by_their_summary(self):
        self.assertEqual(
            totals.count([
                {"id": {"started": {}}},
                completed("//a:passes"), summary("//a:passes", "PASSED"),
                completed("//a:flakes"), summary("//a:flakes", "FLAKY"),
                completed("//a:fails"), summary("//a:fails", "FAILED"),
                completed("//a:slow"), summary("//a:slow", "TIMEOUT"),
                completed("//a:library"),
            ]),
            ({"//a:passes", "//a:flakes"}, {"//a:fails": "FAILED", "//a:slow": "TIMEOUT"}),
        )  # fmt: skip

    def test_a_target_that_does_not_build_has_failed(self):
        self.assertEqual(
            totals.count([
                completed("//a:broken", success=False),
                aborted("//a:unanalysed", "ANALYSIS_FAILURE"),
                aborted("//a:incompatible", "SKIPPED"),
            ]),
            (set(), {"//a:broken": "FAILED_TO_BUILD", "//a:unanalysed": "ANALYSIS_FAILURE"}),
        )  # fmt: skip

    def test_a_package_or_pattern_that_does_not_load_has_failed(self):
        printed = "\x1b[31m\x1b[1mERROR: \x1b[0mpackage contains errors: services/y\nLoading: 3 packages loaded\n"
        self.assertEqual(
            totals.count([
                {"id": {"progress": {}}, "progress": {"stderr": printed}},
                {"id": {"progress": {}}, "progress": {}},
                {"id": {"pattern": {"pattern": ["//nowhere/..."]}}, "aborted": {"reason": "LOADING_FAILURE"}},
                {"id": {"pattern": {"pattern": ["//..."]}}, "expanded": {}},
            ]),
            (set(), {"//services/y": "LOADING_FAILURE", "//nowhere/...": "LOADING_FAILURE"}),
        )  # fmt: skip

    def test_a_test_that_does_not_build_is_counted_once(self):
        events = [completed("//a:test", success=False), summary("//a:test", "NO_STATUS")]
        self.assertEqual(totals.count(events), (set(), {"//a:test": "NO_STATUS"}))
        self.assertEqual(totals.count(events[::-1]), (set(), {"//a:test": "NO_STATUS"}))


class ReportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, runs, **events):
        with open(os.path.join(self.folder, "runs"), "w", encoding="utf-8") as file:
            file.write(runs)
        for name, lines in events.items():
            with open(os.path.join(self.folder, name + ".json"), "w", encoding="utf-8") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))

    def report(self):
        out = io.StringIO()
        return totals.report(self.folder, out), out.getvalue().splitlines()

    def test_the_runs_are_added_up(self):
        self.write(
            "gcc 3 90\nclang 0 6\n",
            gcc=[summary("//a:x", "PASSED"), summary("//a:y", "FAILED")],
            clang=[summary("//a:x", "PASSED")],
        )
        failed, lines = self.report()
        self.assertEqual(failed, 1)
        self.assertEqual(lines, [
            "FAILED in gcc: //a:y (FAILED)",
            "gcc       1 passed    1 failed    1.5 min",
            "clang     1 passed    0 failed    0.1 min",
            "2 passed, 1 failed",
        ])  # fmt: skip

    def test_bazel_failing_by_itself_is_a_failure(self):
        self.write("gcc 37 1\nclang 1 1\n", clang=[summary("//a:x", "PASSED")])
        failed, lines = self.report()
        self.assertEqual(failed, 2)
        self.assertEqual(lines[0], "FAILED in gcc: bazel (Bazel crashed or ran out of memory)")
        self.assertEqual(lines[-1], "1 passed, 2 failed")

    def test_events_cut_short_are_read_as_far_as_they_go(self):
        self.write("gcc 37 1\n", gcc=[summary("//a:x", "PASSED")])
        with open(os.path.join(self.folder, "gcc.json"), "a", encoding="utf-8") as file:
            file.write('{"id": {"testSumm')
        self.assertEqual(self.report()[1][-1], "1 passed, 1 failed")


if __name__ == "__main__":
    unittest.main()
