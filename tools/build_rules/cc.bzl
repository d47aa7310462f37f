"""troupe_cc_library: a library of one header, included as troupe/<room>/x.h."""

def _public_folder(package):
    """framework/base -> troupe/base, testing/sim -> troupe/testing/sim, framework/wire/native -> troupe/wire/native."""
    return "troupe/" + (package[len("framework/"):] if package.startswith("framework/") else package)

def troupe_cc_library(name, hdrs = [], srcs = [], **kwargs):
    """A cc_library whose headers are included from outside as troupe/<room>/x.h.

    In this repository's clang builds every header is also compiled alone, so that one which does not include what it
    uses fails here and not at its user's.

    Args:
      name: of the library.
      hdrs: its headers, normally one.
      srcs: its sources.
      **kwargs: of cc_library.
    """
    package = native.package_name()
    folder = _public_folder(package)
    alone = []
    for header in hdrs:
        stem = "_%s_%s_alone" % (name, header.replace("/", "_").replace(".", "_"))
        native.genrule(
            name = stem,
            outs = [stem + ".cc"],
            cmd = "echo '#include \"%s/%s\"  // IWYU pragma: keep' > $@" % (folder, header),
            visibility = ["//visibility:private"],
        )
        alone.append(stem + ".cc")
    native.cc_library(
        name = name,
        srcs = srcs + select({
            str(Label("//tools/build_rules:headers_alone")): alone,
            "//conditions:default": [],
        }),
        hdrs = hdrs,
        include_prefix = folder,
        strip_include_prefix = "/" + package,
        **kwargs
    )
