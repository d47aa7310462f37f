"""cc_fuzz: one entry point, as a libFuzzer binary under --config=fuzz and as a test over its corpus everywhere."""

def cc_fuzz(name, srcs, corpus, deps = [], **kwargs):
    """Makes NAME_test, which replays the corpus with any compiler, and NAME, which looks for more.

    The fuzzer:  bazel build --config=fuzz //testing/fuzz:NAME
                 bazel-bin/testing/fuzz/NAME testing/fuzz/corpus/NAME

    Args:
      name: of the fuzzer.
      srcs: define LLVMFuzzerTestOneInput.
      corpus: labels of its inputs; what once failed stays here.
      deps: of the sources.
      **kwargs: of the test and the fuzzer.
    """
    native.cc_library(
        name = name + "_entry",
        testonly = True,
        srcs = srcs,
        visibility = ["//visibility:private"],
        deps = deps,
        alwayslink = True,
    )
    native.cc_test(
        name = name + "_test",
        srcs = ["//testing/fuzz:replay.cc"],
        args = ["$(locations %s)" % c for c in corpus],
        data = corpus,
        deps = [":" + name + "_entry"],
        **kwargs
    )
    native.cc_binary(
        name = name,
        testonly = True,
        linkopts = ["-fsanitize=fuzzer"],
        tags = ["manual"],
        deps = [":" + name + "_entry"],
        **kwargs
    )
