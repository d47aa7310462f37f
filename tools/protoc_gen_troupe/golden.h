// The golden files: which inputs in testdata/ have their expected output beside them.
#ifndef TROUPE_PROTOC_GEN_TROUPE_GOLDEN_H_
#define TROUPE_PROTOC_GEN_TROUPE_GOLDEN_H_

namespace troupe::generator {

// Relative to a workspace or to the runfiles of a test.
inline constexpr char kGoldenFolder[] = "tools/protoc_gen_troupe/testdata";

inline constexpr const char* kGoldenProtos[] = {
    "comments/comments.proto", "keywords/v1/keywords.proto",   "legacy/legacy.proto",       "library/v1/library.proto",
    "library/v1/types.proto",  "mutual/account_service.proto", "shadow/absl.proto",         "shadow/last.proto",
    "shadow/shadow.proto",     "twins/east/twin.proto",        "wellknown/wellknown.proto",
};

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_GOLDEN_H_
