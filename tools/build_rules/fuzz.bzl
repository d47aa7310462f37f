"""cc_fuzz: one entry point, as a libFuzzer binary and as a test over its corpus."""

def cc_fuzz(name, srcs, deps = [], size = "small", tags = [], **kwargs):
    """A fuzz target: sources that define LLVMFuzzerTestOneInput, and seeds in the folder NAME_corpus.

    NAME_test feeds it each file of the corpus, whole, cut and damaged, with any compiler, and is part of //... .
    NAME is the fuzzer itself. It needs clang and --config=fuzz; tools/run fuzz builds and runs all of them.
    An input that broke something once becomes a file of the corpus.

    Args:
      name: of the fuzzer.
      srcs: with the entry point.
      deps: of the sources.
      size: of the test.
      tags: of the test.
      **kwargs: of the test.
    """
    native.cc_library(
        name = name + "_entry",
        testonly = True,
        srcs = srcs,
        visibility = ["//visibility:private"],
        deps = deps,
        alwayslink = True,
    )
    corpus = native.glob([name + "_corpus/**"], allow_empty = False)
    native.cc_test(
        name = name + "_test",
        size = size,
        args = ["$(location %s)" % seed for seed in corpus],
        data = corpus,
        tags = tags,
        deps = [
            ":" + name + "_entry",
            Label("//tools/build_rules:fuzz_replay"),
        ],
        **kwargs
    )
    native.cc_binary(
        name = name,
        testonly = True,
        linkopts = ["-fsanitize=fuzzer"],
        tags = [
            "fuzz",
            "manual",
        ],
        deps = [":" + name + "_entry"],
    )
