"""Analysis tests of cc_troupe_library: what it names its files, and what it says to who uses it wrongly."""

load("@bazel_skylib//lib:unittest.bzl", "analysistest", "asserts")
load(":defs.bzl", "cc_troupe_library")

def _files_test_impl(ctx):
    env = analysistest.begin(ctx)
    files = [file.short_path for file in analysistest.target_under_test(env)[DefaultInfo].files.to_list()]
    for wanted in ctx.attr.files:
        asserts.true(env, [f for f in files if f.endswith("_gen/" + wanted)], "%s among %s" % (wanted, files))
    asserts.equals(env, len(ctx.attr.files), len(files))
    return analysistest.end(env)

# The generated files, by the paths by which they are included.
files_test = analysistest.make(
    _files_test_impl,
    attrs = {"files": attr.string_list()},
)

def _failure_test_impl(ctx):
    env = analysistest.begin(ctx)
    for message in ctx.attr.messages:
        asserts.expect_failure(env, message)
    return analysistest.end(env)

# The target fails with these words in its message.
failure_test = analysistest.make(
    _failure_test_impl,
    attrs = {"messages": attr.string_list()},
    expect_failure = True,
)

def defs_test(name):
    """A suite of all of them.

    Args:
      name: of the suite.
    """
    testdata = "//tools/protoc_gen_troupe/testdata:"
    tests = []

    for library, stems in {
        "legacy": ["legacy/legacy", "legacy/moved", "legacy/reexport"],
        "prefixed": ["company/api/first", "company/api/second"],
        "library": ["library/v1/library"],
    }.items():
        cc_troupe_library(
            name = "%s_%s" % (name, library),
            proto = testdata + library + "_proto",
            tags = ["manual"],
            deps = [testdata + library + "_cc_proto"],
        )
        files_test(
            name = "%s_files_of_%s" % (name, library),
            size = "small",
            files = [stem + suffix for stem in stems for suffix in [".troupe.h", ".troupe.cc"]],
            target_under_test = ":%s_%s_gen" % (name, library),
        )
        tests.append("%s_files_of_%s" % (name, library))

    native.proto_library(name = name + "_only_deps_proto", deps = [testdata + "types_proto"])
    for case, (proto, deps, messages) in {
        "no_deps": (
            testdata + "library_proto",
            [],
            [
                "cc_troupe_library(name = \"%s_no_deps\") in //tools/build_rules: it has no deps" % name,
                "library/v1/library.pb.h, the messages of //tools/protoc_gen_troupe/testdata:library_proto",
                "cc_proto_library(name = \"x_cc_proto\", deps = [\"//tools/protoc_gen_troupe/testdata:library_proto\"])",
            ],
        ),
        "deps_of_another": (
            testdata + "library_proto",
            [testdata + "types_cc_proto"],
            ["none of its deps holds library/v1/library.pb.h"],
        ),
        "no_sources": (
            ":%s_only_deps_proto" % name,
            [testdata + "types_cc_proto"],
            ["_only_deps_proto has no sources of its own: write proto = the proto_library that has them"],
        ),
        "no_proto_library": (testdata + "types_cc_proto", [], ["does not have mandatory providers", "ProtoInfo"]),
    }.items():
        cc_troupe_library(name = "%s_%s" % (name, case), proto = proto, tags = ["manual"], deps = deps)
        failure_test(
            name = "%s_refuses_%s" % (name, case),
            size = "small",
            messages = messages,
            target_under_test = ":%s_%s_gen" % (name, case),
        )
        tests.append("%s_refuses_%s" % (name, case))

    native.test_suite(name = name, tests = [":" + test for test in tests])
