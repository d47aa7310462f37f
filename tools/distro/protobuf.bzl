"""The targets of protobuf's own BUILD file that a linker's flags do not make."""

# The well-known types, each with the ones that it imports.
_WELL_KNOWN = {
    "any": [],
    "api": ["source_context", "type"],
    "compiler/plugin": ["descriptor"],
    "descriptor": [],
    "duration": [],
    "empty": [],
    "field_mask": [],
    "source_context": [],
    "struct": [],
    "timestamp": [],
    "type": ["any", "source_context"],
    "wrappers": [],
}

def _target(file):
    return file.replace("/", "_") + "_proto"

def _proto_library(file, imports):
    return """
proto_library(
    name = "%s",
    srcs = ["include/google/protobuf/%s.proto"],
    strip_import_prefix = "include",
    deps = %r,
)
""" % (_target(file), file, [":" + _target(i) for i in imports])

# blacklisted_protos: their generated code is in libprotobuf.
PROTOBUF_BUILD = """
filegroup(
    name = "protoc",
    srcs = ["bin/protoc"],
)

proto_lang_toolchain(
    name = "cc_toolchain",
    blacklisted_protos = %r,
    command_line = "--cpp_out=$(OUT)",
    runtime = ":protobuf",
)
""" % [":" + _target(file) for file in _WELL_KNOWN] + "".join([
    _proto_library(file, imports)
    for file, imports in _WELL_KNOWN.items()
])
