// ScriptedEcho: an echo service whose methods run functions that a test supplies.
#ifndef TROUPE_SERVICE_TESTING_ACTOR_H_
#define TROUPE_SERVICE_TESTING_ACTOR_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "echo/v1/echo.troupe.h"
#include "troupe/async/task.h"
#include "troupe/rpc/call.h"
#include "troupe/rpc/stream.h"

namespace troupe::internal {

struct Script {
  using Status = Task<absl::Status>;
  std::function<Status(const echo::v1::EchoRequest&, echo::v1::EchoResponse&, Call&)> echo;
  std::function<Status(const echo::v1::ExpandRequest&, Writer<echo::v1::ExpandResponse>, Call&)> expand;
  std::function<Status(Reader<echo::v1::CollectRequest>, echo::v1::CollectResponse&, Call&)> collect;
  std::function<Status(Reader<echo::v1::ChatRequest>, Writer<echo::v1::ChatResponse>, Call&)> chat;
  std::function<bool()> eof_received;
  // The callbacks of the actors' lives.
  std::vector<std::string> log;
};

class ScriptedEcho final : public echo::v1::EchoActor {
 public:
  explicit ScriptedEcho(Script& script) : script_(script) { script_.log.push_back("made"); }
  ~ScriptedEcho() override { script_.log.push_back("destroyed"); }

  void ConnectionMade(Connection&) override { script_.log.push_back("ConnectionMade"); }
  bool EofReceived() override { return script_.eof_received ? script_.eof_received() : EchoActor::EofReceived(); }
  void ConnectionLost(const absl::Status& reason) override {
    script_.log.push_back("ConnectionLost " + absl::StatusCodeToString(reason.code()));
  }
  void PauseWriting() override { script_.log.push_back("PauseWriting"); }
  void ResumeWriting() override { script_.log.push_back("ResumeWriting"); }

  Script::Status Echo(const echo::v1::EchoRequest& request, echo::v1::EchoResponse& response, Call& call) override {
    return script_.echo(request, response, call);
  }
  Script::Status Expand(const echo::v1::ExpandRequest& request, Writer<echo::v1::ExpandResponse> writer,
                        Call& call) override {
    return script_.expand(request, writer, call);
  }
  Script::Status Collect(Reader<echo::v1::CollectRequest> reader, echo::v1::CollectResponse& response,
                         Call& call) override {
    return script_.collect(reader, response, call);
  }
  Script::Status Chat(Reader<echo::v1::ChatRequest> reader, Writer<echo::v1::ChatResponse> writer,
                      Call& call) override {
    return script_.chat(reader, writer, call);
  }

 private:
  Script& script_;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_TESTING_ACTOR_H_
