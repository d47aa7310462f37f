"""troupe_cc_library: a library of one header, included as troupe/<room>/x.h."""

def _public_folder(package):
    """framework/base -> troupe/base, testing/sim -> troupe/testing/sim, framework/wire/native -> troupe/wire/native."""
    return "troupe/" + (package[len("framework/"):] if package.startswith("framework/") else package)

def _is_internal(package, hdrs):
    """Users see neither the headers in a folder internal/ nor the codecs."""
    return (package + "/").startswith("framework/wire/") or all([h.startswith("internal/") for h in hdrs])

def troupe_cc_library(name, hdrs = [], srcs = [], visibility = None, **kwargs):
    """A cc_library whose headers are included from outside as troupe/<room>/x.h.

    In this repository's clang builds every header is also compiled alone, so that one which does not include what it
    uses fails here and not at its user's.

    Args:
      name: of the library.
      hdrs: its headers, normally one.
      srcs: its sources.
      visibility: of the library; without it what is internal to a room is seen by the rooms above, the rest as the
        package says.
      **kwargs: of cc_library.
    """
    package = native.package_name()
    folder = _public_folder(package)
    if visibility == None and package.startswith("framework/") and _is_internal(package, hdrs):
        visibility = [str(Label("//framework:%s_and_above" % package.split("/")[1]))]
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
        visibility = visibility,
        **kwargs
    )
