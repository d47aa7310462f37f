// Stage: the world of one run of a scenario: two machines, "server" and "client", in which at most one call of one of
// them fails, and what a run must keep to whatever fails.
//
// It keeps count of what a scenario asks for (Try, Run) and of the connections that are made (Life), and says what is
// Broken: a connection that is not told of its end exactly once, a question without an answer, something that still does
// not work the second time, a hang, a descriptor, a task or a protocol that is left.
//
// Threading: one.     Lifetime: outlives the servers, clients and protocols of its scenario.
#ifndef TROUPE_TESTING_FAULTS_STAGE_H_
#define TROUPE_TESTING_FAULTS_STAGE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "troupe/async/task.h"
#include "troupe/base/monotonic_time.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/testing/sim/sim_os.h"
#include "troupe/testing/sim_world.h"

namespace troupe::testing {

// The `call`-th call of `operation` on a host fails.
struct Fault {
  std::string host;
  std::string operation;
  int call = 1;
  int error = 0;
  // A shortage: from then on, for so long, every call of the host that can give the error gives it.
  absl::Duration lasting = absl::ZeroDuration();
  // No error: the call moves one byte at most.
  bool is_short = false;
  // No error: the other end has gone in good order, and the call gives the end of file.
  bool is_end = false;
};

// Thrown where a scenario cannot go on: time or patience ran out.
class Stuck : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Stage;

// One connection as its protocol or actor is told of it, of whatever kind: Made, Heard*, Lost.
class Life {
 public:
  Life(Stage& stage, std::string name) : stage_(stage), name_(std::move(name)) {}

  void Made();
  void Heard(absl::string_view what);  // any callback in between
  void Lost(const absl::Status& reason);

  const std::string& name() const { return name_; }
  bool made() const { return made_ > 0; }
  bool lost() const { return lost_ > 0; }
  const absl::Status& reason() const { return reason_; }  // OK until it is lost

  // Whoever is told holds one as long as he lives.
  std::shared_ptr<int> Token() {
    if (token_ == nullptr) token_ = std::make_shared<int>();
    return token_;
  }
  bool alive() const { return token_.use_count() > 1; }

 private:
  friend class Stage;
  Stage& stage_;
  const std::string name_;
  int made_ = 0;
  int lost_ = 0;
  absl::Status reason_;
  std::shared_ptr<int> token_;
};

// What a protocol of NewProtocol does.
struct Script {
  std::function<void(Transport&)> made;
  std::function<void(Transport&, absl::Span<const char>)> data;
  std::function<bool(Transport&)> eof;
};

class Stage {
 public:
  explicit Stage(const std::optional<Fault>& fault = std::nullopt);
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  ~Stage();

  SimWorld& world() { return world_; }
  SimHost& server() { return *hosts_[0]; }
  SimHost& client() { return *hosts_[1]; }

  // ---- for scenarios
  // Runs both machines until `task` is done. Its answer, a Status or StatusOr, is noted.
  template <class T>
  T Run(SimHost& host, absl::string_view what, Task<T> task) {
    Asked(what);
    const TaskHandle<T> handle = host.loop().CreateTask(std::move(task), what);
    RunUntil([&handle] { return handle.done(); });
    T answer = handle.state().Take();
    Answered(what, StatusOf(answer));
    return answer;
  }
  // The same, without a note.
  template <class T>
  T Run(SimHost& host, Task<T> task) {
    const TaskHandle<T> handle = host.loop().CreateTask(std::move(task), "stage");
    RunUntil([&handle] { return handle.done(); });
    if constexpr (std::is_void_v<T>) {
      handle.result();
    } else {
      return handle.state().Take();
    }
  }
  // Runs what `make` makes, again if it did not end OK: the fault is over then, so that the second attempt must be OK.
  // The answer, unless that is only a Status.
  template <class Make>
  auto Try(SimHost& host, absl::string_view what, Make make) {
    auto answer = Run(host, what, make());
    if (!StatusOf(answer).ok()) {
      const absl::Status first = StatusOf(answer);
      Recover();
      answer = Run(host, absl::StrCat(what, " again"), make());
      if (!StatusOf(answer).ok()) {
        throw Stuck(absl::StrCat(what, " failed twice: ", first.ToString(), "; ", StatusOf(answer).ToString()));
      }
    }
    if constexpr (!std::is_same_v<decltype(answer), absl::Status>) return answer;
  }
  // For what is neither a task nor tried twice: each question is to be answered once.
  void Asked(absl::string_view what);
  void Answered(absl::string_view what, const absl::Status& status);

  void RunUntil(absl::FunctionRef<bool()> done);
  void RunFor(absl::Duration duration);

  // A connection to be told of its end once. The same name may be given to several.
  Life& NewLife(absl::string_view name);
  std::unique_ptr<Protocol> NewProtocol(Life& life, Script script = {});
  std::unique_ptr<Protocol> NewProtocol(absl::string_view name, Script script = {}) {
    return NewProtocol(NewLife(name), std::move(script));
  }
  // All that were made have been told of their end.
  bool AllLost() const;
  bool AnyLostByError() const;
  // A stream was ended in good order, and too early: what was on its way is lost, which nobody can tell but TLS.
  bool cut_short() const { return injected_ && fault_->is_end; }
  // Of the answers so far.
  bool AnyRefused() const;
  // Nothing more can fail.
  bool spent() const { return !fault_.has_value() || (injected_ && world_.Now() >= shortage_end_); }
  // After an attempt that failed: lets a shortage pass.
  void Recover();

  // Something is wrong, whatever failed.
  void Broken(absl::string_view text);
  void Expect(bool condition, absl::string_view text) {
    if (!condition) Broken(text);
  }

  // ---- for the sweep
  // To be called when the scenario has returned.
  void Finish();
  // Calls so far, by operation, in the order of the first ones.
  const std::vector<std::pair<std::string, int>>& Calls(absl::string_view host) const;
  int CallsOf(absl::string_view host, absl::string_view operation) const;
  bool injected() const { return injected_; }
  const std::vector<std::string>& broken() const { return broken_; }
  const std::vector<std::string>& reports() const { return reports_; }
  // By question, in order.
  const std::vector<std::pair<std::string, absl::Status>>& answers() const { return answers_; }
  // What two runs can be compared by, but for the errors' texts.
  std::string Summary() const;
  absl::Duration took() const { return took_; }

 private:
  static const absl::Status& StatusOf(const absl::Status& status) { return status; }
  template <class T>
  static const absl::Status& StatusOf(const absl::StatusOr<T>& value) {
    return value.status();
  }
  void Watch(size_t host);
  int OnCall(size_t host, absl::string_view operation, int fd);

  // Before the world, whose end may still tell them something.
  std::vector<std::unique_ptr<Life>> lives_;
  std::vector<std::string> broken_;
  SimWorld world_;
  std::array<SimHost*, 2> hosts_;
  std::array<std::vector<std::pair<std::string, int>>, 2> calls_;
  const std::optional<Fault> fault_;
  bool injected_ = false;
  MonotonicTime shortage_end_;
  SimOs* shortened_ = nullptr;  // until its next call
  int64_t steps_ = 0;
  std::map<std::string, int> open_questions_;
  std::vector<std::pair<std::string, absl::Status>> answers_;
  std::vector<std::string> reports_;
  absl::Duration took_;
};

}  // namespace troupe::testing

#endif  // TROUPE_TESTING_FAULTS_STAGE_H_
