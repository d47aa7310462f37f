#!/usr/bin/env python3
"""Each rule finds what it is for, and leaves alone what is right."""

import os
import tempfile
import unittest

import lint


def findings(path, text, rule, root="."):
    return [line for line, name, _ in lint.check_file(root, path, text) if name == rule]


class RuleTest(unittest.TestCase):
    def refuses(self, rule, *texts, path="framework/async/x.cc"):
        for text in texts:
            with self.subTest(refused=text):
                self.assertTrue(findings(path, text, rule))

    def allows(self, rule, *texts, path="framework/async/x.cc"):
        for text in texts:
            with self.subTest(allowed=text):
                self.assertEqual(findings(path, text, rule), [])


class LayeringTest(RuleTest):
    def include(self, path, header):
        return findings(path, '// A.\n#include "%s"\n' % header, "layering") == [2]

    def test_every_pair_of_rooms(self):
        order = ["base", "os", "loop", "async", "net", "rpc", "wire", "actor", "service"]
        apart = {("net", "rpc"), ("net", "wire"), ("net", "actor"), ("wire", "actor")}
        for i, lower in enumerate(order):
            for upper in order[i + 1 :]:
                with self.subTest(lower=lower, upper=upper):
                    self.assertTrue(self.include("framework/%s/a.h" % lower, "troupe/%s/b.h" % upper))
                    refused = (lower, upper) in apart
                    self.assertEqual(self.include("framework/%s/a.h" % upper, "troupe/%s/b.h" % lower), refused)

    def test_a_room_may_include_itself_and_its_folders(self):
        self.assertFalse(self.include("framework/wire/native/a.cc", "troupe/wire/codec.h"))
        self.assertTrue(self.include("framework/wire/native/a.cc", "troupe/net/transport.h"))

    def test_testing_and_services_are_on_top(self):
        for room in lint._ROOMS:
            self.assertTrue(self.include("framework/%s/a.cc" % room, "troupe/testing/sim/os.h"))
            self.assertTrue(self.include("framework/%s/a.cc" % room, "services/kv/store.h"))
            self.assertFalse(self.include("testing/a.cc", "troupe/%s/b.h" % room))
            self.assertFalse(self.include("services/kv/a.cc", "troupe/%s/b.h" % room))
        self.assertTrue(self.include("testing/in_process.h", "services/kv/store.h"))
        self.assertTrue(self.include("services/kv/store.cc", "troupe/testing/in_process.h"))
        self.assertFalse(self.include("testing/benchmarks/rpc.cc", "services/echo/echo.h"))
        self.assertFalse(self.include("testing/samples/a.cc", "testing/samples/b.h"))
        self.assertTrue(self.include("testing/in_process.cc", "testing/samples/b.h"))

    def test_tests_may_use_testing_but_no_higher_room(self):
        self.assertFalse(self.include("framework/loop/a_test.cc", "troupe/testing/sim/os.h"))
        self.assertTrue(self.include("framework/loop/a_test.cc", "troupe/async/task.h"))

    def test_generated_code_of_protos_is_not_for_the_lower_rooms(self):
        self.assertFalse(self.include("framework/wire/a.cc", "troupe/options.pb.h"))
        self.assertTrue(self.include("framework/loop/a.cc", "troupe/options.pb.h"))

    def test_folders_are_included_by_their_public_name(self):
        self.assertTrue(self.include("framework/os/a.cc", "framework/base/b.h"))
        self.assertTrue(self.include("services/kv/a.cc", "testing/in_process.h"))
        self.assertFalse(self.include("framework/wire/a_test.cc", "framework/wire/vectors.pb.h"))

    def test_libraries_and_comments_are_not_ours(self):
        self.allows("layering", "#include <sys/epoll.h>\n", '#include "absl/status/status.h"\n',
                    '// #include "troupe/service/server.h"\n')  # fmt: skip

    def test_an_unknown_room_is_told(self):
        self.refuses("layering", "// A.\n", path="framework/cluster/a.h")


class CoroutineTest(RuleTest):
    def test_await_in_condition(self):
        self.refuses(
            "await-in-condition",
            "if (co_await G()) co_return 1;",
            "while (!co_await G()) {",
            "switch (co_await G()) {",
            "if (x == co_await G()) {",
            "if (x && (co_await G()).ok()) {",
            "for (; co_await G();) {",
            "if (x = co_await G()) {",
            "Task<int> F(int a, int b) { a = b; if (co_await G()) co_return 1; co_return 0; }",
            "Task<int> F() { try { if (co_await G()) { int x = 1; } } catch (const E& e) {} co_return 0; }",
            "Task<int> F() { int x; [](int y) -> Task<int> { if (co_await G(y)) co_return 1; co_return 0; }; }",
            "class A { int x_; Task<int> F() { while (co_await G()) Use(); co_return 0; } };",
        )
        self.allows(
            "await-in-condition",
            "const bool ok = co_await G(); if (ok) co_return 1;",
            "if (auto s = co_await G(); !s.ok()) co_return s;",
            "while (std::optional<E> e = co_await Next()) {",
            "if (int v = co_await G(); v > 2) {",
            "if (ready) {\n  co_await G();",
            "// if (co_await G())",
            'Log("if (co_await G())");',
            "if (x) co_await G();",
            "Task<int> F() { int x = 0; if (co_await G()) co_return 1; co_return x; }",
            "Task<int> F() {\n  Event event;\n  while (co_await r.Read(event)) {\n    Use(event);\n  }\n}",
            "Task<int> F() { for (auto& x : xs) { if (co_await G(x)) break; } using T = int; co_return 0; }",
            "auto f = [](R& r) -> Task<int> { const std::vector<int> v{1, 2}; while (co_await r.Read()) {} co_return 0; };",
            "Task<int> F() { auto [a, b] = G(); switch (co_await H(a)) { default: co_return b; } }",
        )

    def test_await_of_temporary(self):
        self.refuses(
            "await-of-temporary",
            "co_await F(Agg{1});",
            "co_await F({1, 2});",
            "co_await F(x, {y});",
            "co_await Awaiter{this};",
            "co_yield Agg{1};",
            "auto r = co_await F(a,\n    Agg{1});",
            "co_return co_await F(Agg{});",
            "co_await CreateServer(loop, factory, {.listen = {address}});",
            "co_await CreateServer(loop, factory, {.listen = addresses});",
            "co_await CreateServer(loop, [] { return 1; }, {.listen = addresses});",
            "co_await Use({.a = big, .b = big});",
            "co_await Use({.timeout = t, .b = big});",
            "co_await F([p] { return *p; });",
            "co_await F([p = std::move(p)] { return *p; });",
            "co_await F(x, [=](int y) { return y; });",
            "for (;;) { co_await F(Agg{1}); }",
            "co_await F(std::vector<int>{1});",
        )
        self.allows(
            "await-of-temporary",
            "co_await kv.Get(request, {.timeout = t});",
            "co_await kv.Get(request, {.timeout = absl::Seconds(1), .metadata = &m});",
            "co_await F([] { return 1; });",
            "co_await F([] { return Agg{1}; }, {.timeout = t});",
            "co_await CreateDatagramEndpoint(loop, factory, {.local = where, .remote = peer});",
            "co_await Sendfile(transport, file, {.offset = 5, .count = 7});",
            "co_await F([&] { return x; });",
            "co_await F([&x](int y) -> int { return x + y; });",
            "co_await F([this] { return x_; });",
            "Agg a{1};\nco_await F(std::move(a));",
            "co_await F(Opts());",
            "co_await F(Opts().Timeout(t));",
            "co_return Agg{1};",
            "const int n = co_await F(a[i], b);",
            "if (auto s = co_await F(x); !s.ok()) { co_return s; }",
            "while (co_await r.Read(m)) {\n  Use(Agg{1});\n}",
            "Task<int> F() {\n  co_await G();\n}\nstruct A {\n  int x;\n};",
            "try { co_await F(); } catch (...) { throw; }",
        )

    def test_await_in_operator(self):
        self.refuses("await-in-operator", "x = c ? co_await A() : b;", "x = c ? a : co_await B();",
                     "x = c ? n::a : 1 + co_await B();")  # fmt: skip
        self.allows("await-in-operator", "x = co_await A(c ? a : b);", "case a: co_await B();",
                    "auto y = c ? a : b;\nco_await n::B(y);")  # fmt: skip
        self.refuses("await-in-operator", "while (n < m && co_await r.Read(e)) Use(e);", "x = a || (co_await B()).ok();")
        self.allows("await-in-operator", "auto&& x = co_await A();", "const bool x = a && b;\nco_await A();",
                    "if (a && b) {\n  co_await A();\n}", "const bool both = co_await A() && b;")  # fmt: skip

    def test_coroutine_lambda(self):
        self.refuses(
            "coroutine-lambda",
            "auto f = [&]() -> Task<void> { co_await G(); };",
            "loop.CreateTask([x]() -> Task<int> { co_return x; }());",
            "auto f = [this](int a) mutable -> troupe::Task<absl::StatusOr<int>> {\n  co_await G(a);\n};",
            "auto f = [&] { co_await G(); };",
            "loop.RunUntilComplete([&]() -> Task<int> { co_return x; }());",
            "Run([&] { loop.CreateTask([&]() -> Task<void> { co_await G(); }()); });",
            "CallSoon([&]() -> Task<int> { co_return x; });",
        )
        self.allows(
            "coroutine-lambda",
            "auto f = []() -> Task<void> { co_await G(); };",
            "auto f = [](int& x) -> Task<void> { co_await G(x); };",
            "auto f = [&] { return [](int x) -> Task<int> { co_return x; }(y); };",
            "auto f = [&x] { return G(x); };\nco_await f();",
            "[[nodiscard]] Task<int> F() { co_return a[i]; }",
            "EXPECT_EQ(RunMain(os_, [&](EventLoop& loop) -> Task<absl::Status> { co_await G(); co_return s; }), 0);",
            "Simulate({.seeds = 200}, [&](SimWorld& world) -> Task<void> { co_await G(x); });",
        )


    def test_in_a_test_a_named_closure_may_be_a_coroutine(self):
        named = "const auto f = [&]() -> Task<void> { co_await G(); };"
        self.refuses("coroutine-lambda", named)
        self.allows("coroutine-lambda", named, path="framework/async/x_test.cc")
        self.refuses("coroutine-lambda", "loop.CreateTask([&]() -> Task<void> { co_await G(); }());",
                     path="framework/async/x_test.cc")  # fmt: skip


class ErrorTest(RuleTest):
    def test_catch_all(self):
        self.refuses("catch-all", "try { F(); } catch (...) { }", "catch (...) {\n  LOG(ERROR);\n}\nthrow;",
                     "catch (...) {  // throw;\n}", "catch (...) {  //\n}")  # fmt: skip
        self.allows(
            "catch-all",
            "try { F(); } catch (...) { Undo(); throw; }",
            "catch (...) {\n  error = std::current_exception();\n}",
            "catch (...) {  // reports to the exception handler\n  Report();\n}",
            "catch (const StatusError& e) { }",
        )

    def test_log_in_header(self):
        for path in ("framework/async/x.h", "testing/x.h"):
            self.refuses("log-in-header", 'LOG(INFO) << "x";', "DLOG(INFO);", "VLOG(1);", "#include <glog/logging.h>",
                         path=path)  # fmt: skip
        self.allows("log-in-header", "// LOG(INFO) is for sources", "void Log(int);", path="framework/async/x.h")
        self.allows("log-in-header", "LOG(INFO);", path="framework/async/x.cc")


class HabitTest(RuleTest):
    def test_beyond_the_seam(self):
        self.refuses("beyond-the-seam", "#include <sys/epoll.h>", "int fd = ::socket(a, b, 0);", "auto t = absl::Now();", "std::thread t(F);",
                     "auto t = std::chrono::steady_clock::now();", "#include <random>")  # fmt: skip
        self.allows("beyond-the-seam", "#include <sys/socket.h>", "os.Socket(AF_INET, SOCK_STREAM)", "A::connect(b);",
                    "std::thread::id id = std::this_thread::get_id();", "auto t = os.Now();", "loop.random()()", "x.random();")
        for path in ("framework/os/posix_os.cc", "framework/net/x_test.cc", "services/kv/x.cc"):
            self.allows("beyond-the-seam", "#include <sys/epoll.h>", path=path)

    def test_default_capture(self):
        self.refuses("default-capture", "[=] { };", "[=, &x] { };")
        self.allows("default-capture", "[x = y] { };", "a[i] = 1;", "[&] { };")

    def test_sleep(self):
        self.refuses("sleep", "std::this_thread::sleep_for(d);", "usleep(1);", "sleep(1);", "absl::SleepFor(d);")
        self.allows("sleep", "co_await Sleep(d);", "os.sleep(1);", "// sleep(1)")
        self.refuses("sleep", "#!/bin/sh\nsleep 1\n", "#!/bin/sh\nwhile x; do sleep 0.1; done\n", path="tools/x")
        self.allows("sleep", '#!/bin/sh\necho "sleep 1"\n# sleep 1\n', path="tools/x.sh")
        self.refuses("sleep", "time." "sleep(1)\n", path="tools/x.py")

    def test_disabled_test(self):
        self.refuses("disabled-test", "TEST(A, DISABLED_Works) {", "GTEST_SKIP();")
        self.allows("disabled-test", "TEST(A, StaysDisabledAfterClose) {")

    def test_unfinished(self):
        for word in ("TO" + "DO", "FIX" + "ME", "XX" + "X"):
            for path in ("framework/async/x.h", "tools/run", "README.md", "framework/async/BUILD.bazel"):
                self.refuses("unfinished", "# %s: the rest\n" % word, path=path)
        self.allows("unfinished", "mastodon", "aXXXb")

    def test_machine_path(self):
        self.refuses("machine-path", "see /ho" + "me/ann/x", "cp a /ro" + "ot/b", '"/wo' + 'rk/x"', path="README.md")
        self.allows("machine-path", "//framework/root/x", "https://example.org/home/x", "the work/root folder",
                    "$HOME/work/x", path="README.md")  # fmt: skip

    def test_registry_host(self):
        self.refuses("registry-host", "http://de" + "b.debian.org/debian", "registry.np" + "mjs.org", path="tools/x.txt")
        self.allows("registry-host", "https://www.debian.org/", path="README.md")

    def test_header(self):
        good = "// A.\n#ifndef TROUPE_ASYNC_X_H_\n#define TROUPE_ASYNC_X_H_\n#endif\n"
        self.allows("header", good, path="framework/async/x.h")
        self.refuses("header", good.replace("// A.\n", ""), good.replace("ASYNC", "LOOP"), "// A.\n#pragma once\n",
                     path="framework/async/x.h")  # fmt: skip
        self.allows("header", good.replace("ASYNC", "TESTING_SIM"), path="testing/sim/x.h")
        self.allows("header", good.replace("ASYNC", "A"), good.replace("ASYNC", "TOOLS_A"), path="tools/a/x.h")


class TreeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.write("WORKSPACE", "")
        self.write("README.md", "[tools](tools/x.cc)\n")

    def write(self, path, text):
        whole = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w", encoding="utf-8") as file:
            file.write(text)

    def test_a_folder_with_a_build_file_has_a_readme(self):
        self.write("tools/BUILD.bazel", "")
        self.write("tools/x.cc", "")
        self.assertEqual([f.split(":")[0] for f in lint.check_tree(self.root)[0]], ["tools/README.md"])
        self.write("tools/README.md", "")
        self.assertEqual(lint.check_tree(self.root)[0], [])

    def test_a_link_that_leads_nowhere_is_found(self):
        self.assertEqual(len(lint.check_tree(self.root)[0]), 1)
        self.write("tools/x.cc", "")
        self.assertEqual(lint.check_tree(self.root)[0], [])

    def test_a_page_that_a_comment_cites_is_there(self):
        self.write("tools/x.cc", "")
        self.write("tools/PAGE.md", "")
        self.write("tools/a/y.h", "// See PAGE.md, tools/PAGE.md and GONE.md.\n")
        self.write("tools/a/y.cc", 'Open("GONE.md");\n// As a/GONE.md says.\n')
        gone = "GONE.md"
        self.write("tools/a/y.py", "open('%s')  # %s\n" % (gone, gone))
        self.write("tools/a/z.proto", "// See PAGE.md.\n")
        self.assertEqual(
            [f.split(": ")[0] for f in lint.check_tree(self.root)[0] if "dead-citation" in f],
            ["tools/a/y.cc:2", "tools/a/y.h:1", "tools/a/y.py:1"],
        )

    def test_tests_that_use_threads_are_tagged(self):
        self.write("tools/x.cc", "")
        self.write("tools/README.md", "")
        self.write("tools/a_test.cc", "std::thread t([] {});")
        self.write("tools/b_test.cc", "std::thread::id id;")
        block = 'cc_test(\n    name = "%s_test",\n    srcs = ["%s_test.cc"],\n%s)\n'
        self.write("tools/BUILD.bazel", block % ("b", "b", "") + block % ("a", "a", ""))
        self.assertEqual([f.split(": ")[0] for f in lint.check_tree(self.root)[0]], ["tools/BUILD.bazel:5"])
        for tag in ["threads", "no_tsan"]:
            self.write("tools/BUILD.bazel", block % ("a", "a", '    tags = ["%s"],\n' % tag))
            self.assertEqual(lint.check_tree(self.root)[0], [])

    def test_scripts_without_extension_are_read_and_binaries_are_not(self):
        self.write("tools/x.cc", "")
        self.write("tools/script", "#!/bin/sh\nsleep 1\n")
        self.write("tools/data", "sleep 1\n")
        self.assertEqual(lint.check_tree(self.root)[0], [
            "tools/script:2: real sleeping: wait for what is awaited [troupe-sleep]"])  # fmt: skip

    def test_the_outputs_of_bazel_are_not_ours(self):
        self.write("tools/x.cc", "")
        self.write("bazel-bin/x.cc", "sleep(1);")
        self.assertEqual(lint.check_tree(self.root)[0], [])

    def test_the_tree_is_found_from_a_link_to_one_of_its_files(self):
        for i in range(10):
            self.write("tools/%d.cc" % i, "")
        self.write("tools/x.cc", "")
        with tempfile.TemporaryDirectory() as elsewhere:
            link = os.path.join(elsewhere, "link")
            os.symlink(os.path.join(self.root, "tools/x.cc"), link)
            self.assertEqual(lint.main(link), 0)
            self.write("tools/x.cc", "sleep(1);")
            self.assertEqual(lint.main(link), 1)


class SourceTest(unittest.TestCase):
    def test_comments_and_literals_are_blanked_in_place(self):
        text = 'a("sleep(1)"); // x\n/* y\nz */ b(\'"\', R"(sleep(1))", 1\'000);'
        code = lint.blank_comments_and_literals(text)
        self.assertEqual(len(code), len(text))
        self.assertEqual(code.count("\n"), 2)
        self.assertNotIn("sleep", code)
        self.assertNotIn("x", code)
        self.assertNotIn("z", code)
        self.assertIn("1'000);", code)

    def test_a_finding_is_excused_by_name_and_reason_only(self):
        line = "usleep(1);  // NOLINT(troupe-%s)%s"
        self.assertEqual(findings("services/a.cc", line % ("sleep", ": the peer gives no sign"), "sleep"), [])
        self.assertEqual(findings("services/a.cc", line % ("sleep", ""), "sleep"), [1])
        self.assertEqual(findings("services/a.cc", line % ("header", ": no"), "sleep"), [1])


if __name__ == "__main__":
    unittest.main()
