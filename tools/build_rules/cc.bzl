"""troupe_cc_library: a library of one header, included as troupe/<room>/x.h."""

def _room(package):
    """framework/base -> troupe/base, testing/sim -> troupe/testing/sim, framework/wire/native -> troupe/wire/native."""
    if package.startswith("framework/"):
        return "troupe/" + package[len("framework/"):]
    return "troupe/" + package

def troupe_cc_library(name, hdrs = [], srcs = [], **kwargs):
    """A cc_library whose headers are included from outside as troupe/<room>/x.h.

    Every header is also compiled alone, so that one which does not include what it uses fails here and not at its user's.

    Args:
      name: of the library.
      hdrs: its headers, normally one.
      srcs: its sources.
      **kwargs: of cc_library.
    """
    package = native.package_name()
    alone = []
    for h in hdrs:
        source = "_%s_%s_alone.cc" % (name, h.replace("/", "_").replace(".", "_"))
        native.genrule(
            name = source[:-len(".cc")],
            outs = [source],
            cmd = "echo '#include \"%s/%s\"  // IWYU pragma: keep' > $@" % (_room(package), h),
            visibility = ["//visibility:private"],
        )
        alone.append(source)
    native.cc_library(
        name = name,
        hdrs = hdrs,
        srcs = srcs + alone,
        include_prefix = _room(package),
        strip_include_prefix = "/" + package,
        **kwargs
    )
