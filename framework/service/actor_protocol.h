// ActorProtocol: one actor over the native wire, as a Protocol that the bare loop can host.
//
// protoc-gen-troupe derives KeyValueProtocol from it, for CreateServer and CreateConnection:
//   CreateServer(loop, [&] { return std::make_unique<KeyValueProtocol>(std::make_unique<KeyValueService>(store)); },
//   ...)
// There is no drain and no sharing of the port: use Server unless the loop is all you want.
//
// Life:      as Protocol. After ConnectionLost the actor lives on until its handlers have ended, or the loop is closed.
// Threading: the loop's.
#ifndef TROUPE_SERVICE_ACTOR_PROTOCOL_H_
#define TROUPE_SERVICE_ACTOR_PROTOCOL_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "troupe/actor/actor.h"
#include "troupe/base/intrusive_list.h"
#include "troupe/net/protocol.h"
#include "troupe/rpc/method.h"
#include "troupe/service/memory_guard.h"
#include "troupe/service/service_table.h"
#include "troupe/service/session.h"

namespace troupe {

class ActorProtocol : public Protocol {
 public:
  ~ActorProtocol() override;

  void ConnectionMade(Transport& transport) override;
  bool EofReceived() override;
  void PauseWriting() override;
  void ResumeWriting() override;
  void ConnectionLost(const absl::Status& reason) override;

 protected:
  // For generated classes. `generated` points to the generated actor class within `actor`.
  ActorProtocol(const ServiceBinding& binding, std::unique_ptr<Actor> actor, void* generated);
  // What DataReceived of the generated class does: decodes the native wire and calls the actor.
  void Feed(absl::Span<const char> data);

 private:
  struct Hosted : ListNode<> {
    ServiceTable table;
    SessionCounters counters;
    std::unique_ptr<MemoryGuard> memory;  // of the process: the default bound
    std::unique_ptr<Session> session;     // goes before what it uses
  };
  class Orphans;

  std::unique_ptr<Hosted> hosted_;
  std::unique_ptr<Protocol> inner_;  // the session's
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_ACTOR_PROTOCOL_H_
