"""troupe_lint_test: what compilers do not say about coroutines, said by a test.

    load("@troupe//tools/build_rules:lint.bzl", "troupe_lint_test")
    troupe_lint_test(name = "lint", srcs = glob(["**/*.cc", "**/*.h"]))

It refuses what g++ 12 miscompiles in expressions that await (temporaries that own something, awaits in conditions and
behind && and ||), capturing lambdas that are coroutines, and catch (...) that swallows a cancellation. A line is excused by
a comment on it that says why: NOLINT(troupe-await-of-temporary): the aggregate owns nothing.
"""

def troupe_lint_test(name, srcs, **kwargs):
    """A test that reads `srcs`, C++ files of this package."""

    # sh_test, because what py_test writes starts "python", which Debian 12 has only as python3.
    native.sh_test(
        name = name,
        srcs = [Label("//tools/lint:lint.py")],
        args = ["--coroutines"] + ["$(rootpaths %s)" % src for src in srcs],
        data = srcs,
        size = kwargs.pop("size", "small"),
        **kwargs
    )
