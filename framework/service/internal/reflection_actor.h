// ReflectionActor: grpc.reflection.v1 and v1alpha for one connection of a Server: which services there are, by its
// table, and what they are made of, by the descriptors that are linked into the program: generated code names those of
// its file.
//
// Threading: the loop's.     Lifetime: as an actor; the table outlives its calls.
#ifndef TROUPE_SERVICE_INTERNAL_REFLECTION_ACTOR_H_
#define TROUPE_SERVICE_INTERNAL_REFLECTION_ACTOR_H_

#include "absl/status/status.h"
#include "grpc/reflection/v1/reflection.troupe.h"
#include "grpc/reflection/v1alpha/reflection.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"
#include "troupe/service/service_table.h"

namespace troupe::internal {

struct ReflectionOptions {
  const ServiceTable* table = nullptr;
  bool everywhere = false;  // else on connections of this machine only
};

// One of the two versions, which have the same messages.
template <class Generated, class Question, class Answer>
class ReflectionActor final : public Generated {
 public:
  explicit ReflectionActor(const ReflectionOptions& options) : options_(options) {}

  Task<absl::Status> ServerReflectionInfo(Reader<Question> questions, Writer<Answer> answers, Call& call) override;

 private:
  const ReflectionOptions options_;
};

using ReflectionV1Actor =
    ReflectionActor<grpc::reflection::v1::ServerReflectionActor, grpc::reflection::v1::ServerReflectionRequest,
                    grpc::reflection::v1::ServerReflectionResponse>;
using ReflectionV1AlphaActor =
    ReflectionActor<grpc::reflection::v1alpha::ServerReflectionActor,
                    grpc::reflection::v1alpha::ServerReflectionRequest,
                    grpc::reflection::v1alpha::ServerReflectionResponse>;

extern template class ReflectionActor<grpc::reflection::v1::ServerReflectionActor,
                                      grpc::reflection::v1::ServerReflectionRequest,
                                      grpc::reflection::v1::ServerReflectionResponse>;
extern template class ReflectionActor<grpc::reflection::v1alpha::ServerReflectionActor,
                                      grpc::reflection::v1alpha::ServerReflectionRequest,
                                      grpc::reflection::v1alpha::ServerReflectionResponse>;

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_INTERNAL_REFLECTION_ACTOR_H_
