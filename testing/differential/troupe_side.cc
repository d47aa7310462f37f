// Runs scenarios on Troupe's loop, in virtual time, and writes what happened.
//
//   troupe_side strict|shared < scenarios > traces
//
// asyncio_side.py is the same for Python's asyncio: whatever is changed here is changed there. README.md has the
// statements.
#include <glog/logging.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "troupe/async/async_generator.h"
#include "troupe/async/blocking.h"
#include "troupe/async/ensure_future.h"
#include "troupe/async/event.h"
#include "troupe/async/future.h"
#include "troupe/async/gather.h"
#include "troupe/async/internal/root.h"
#include "troupe/async/mutex.h"
#include "troupe/async/queue.h"
#include "troupe/async/semaphore.h"
#include "troupe/async/shield.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/async/task_group.h"
#include "troupe/async/wait.h"
#include "troupe/async/wait_for.h"
#include "troupe/base/errors.h"
#include "troupe/base/os_error.h"
#include "troupe/loop/context.h"
#include "troupe/loop/event_loop.h"
#include "troupe/net/sockets.h"
#include "troupe/net/stream_transport.h"
#include "troupe/net/transport.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe {
namespace {

constexpr int kStepsMax = 5000;
constexpr absl::Duration kSettled = absl::Seconds(1000);

const ContextVar<std::string> kVariable("none");

// ---------------------------------------------------------------------------------------------------- the language

using Words = std::vector<std::string>;

struct Part;
struct Statement {
  const Words& words() const;
  const std::vector<Statement>& block() const;
  std::vector<Part> parts;
};
using Block = std::vector<Statement>;
struct Part {
  Words words;
  Block block;
};
const Words& Statement::words() const { return parts.front().words; }
const Block& Statement::block() const { return parts.front().block; }

// Reads statements up to the brace that closes the block, or the end.
Block ParseBlock(const Words& tokens, size_t& next) {
  Block block;
  Statement statement;
  Words words;
  const auto end = [&] {
    if (!words.empty()) statement.parts.push_back({std::exchange(words, {}), {}});
    if (!statement.parts.empty()) block.push_back(std::exchange(statement, {}));
  };
  while (next < tokens.size()) {
    const std::string& token = tokens[next++];
    if (token == "{") {
      Block inner = ParseBlock(tokens, next);
      statement.parts.push_back({std::exchange(words, {}), std::move(inner)});
    } else if (token == "}") {
      break;
    } else if (token == "\n" || token == ";") {
      end();
    } else {
      words.push_back(token);
    }
  }
  end();
  return block;
}

Block Parse(const std::string& text) {
  Words tokens;
  std::string word;
  for (const char c : text + "\n") {
    const bool alone = c == '\n' || c == ';' || c == '{' || c == '}';
    if (!alone && c != ' ') {
      word += c;
      continue;
    }
    if (!word.empty()) tokens.push_back(std::exchange(word, {}));
    if (alone) tokens.emplace_back(1, c);
  }
  size_t next = 0;
  return ParseBlock(tokens, next);
}

// ---------------------------------------------------------------------------------------------------- errors, values

class Oops final : public std::exception {
 public:
  explicit Oops(std::string name) : name_(std::move(name)) {}
  const char* what() const noexcept override { return name_.c_str(); }

 private:
  std::string name_;
};

std::string NameOf(const absl::Status& status) {
  if (absl::IsDeadlineExceeded(status)) return "timeout";
  switch (ErrnoOf(status)) {
    case EPIPE:
      return "EPIPE";
    case ECONNRESET:
      return "ECONNRESET";
    default:
      return "exception";
  }
}

// The word for an exception: its own name, or its kind.
std::string NameOf(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Oops& oops) {
    return oops.what();
  } catch (const Cancelled&) {
    return "cancelled";
  } catch (const Fatal&) {
    return "fatal";
  } catch (const StatusError& status) {
    return NameOf(status.status());
  } catch (const InvalidState& invalid) {
    return absl::StartsWith(invalid.what(), "nothing is left that could wake") ? "stalled" : "invalid";
  }
}

[[noreturn]] void Throw(const std::string& name) {
  if (name == "cancelled") throw Cancelled();
  if (name == "fatal") throw Fatal("scenario");
  throw Oops(name);
}

std::exception_ptr ErrorOf(const std::string& name) {
  try {
    Throw(name);
  } catch (...) {  // becomes a value
    return std::current_exception();
  }
}

bool Catches(const std::string& kind, const std::exception_ptr& error) {
  const std::string name = NameOf(error);
  if (name == "fatal" || name == "stalled") return false;
  return kind == "all" || kind == name || (kind == "any" && name != "cancelled");
}

std::string Show(const std::string& value) { return value; }
std::string Show(const std::vector<std::string>& values) { return absl::StrCat("[", absl::StrJoin(values, ", "), "]"); }
std::string Show(const std::vector<Future<std::string>>& outcomes) {
  std::vector<std::string> shown;
  for (const auto& outcome : outcomes) {
    try {
      shown.push_back(outcome.result());
    } catch (...) {  // shown
      shown.push_back(NameOf(std::current_exception()));
    }
  }
  return Show(shown);
}

absl::Duration Seconds(const std::string& word) {
  double seconds = 0;
  CHECK(absl::SimpleAtod(word, &seconds)) << word;
  return absl::Seconds(seconds);
}

int64_t Number(const std::string& word) {
  int64_t number = 0;
  CHECK(absl::SimpleAtoi(word, &number)) << word;
  return number;
}

// What a name stands for; a name that stands for nothing is a mistake in the scenario.
template <class Map>
auto& Named(Map& things, const std::string& name) {
  const auto found = things.find(name);
  CHECK(found != things.end()) << "nothing is called " << name;
  return found->second;
}

// ---------------------------------------------------------------------------------------------------- things

// A future of any type that has a name.
class Thing {
 public:
  virtual ~Thing() = default;
  virtual bool Cancel() const = 0;
  virtual internal::FutureCore& core() const = 0;
  virtual std::string Result() const = 0;
  virtual Task<std::string> Await() const = 0;
  virtual Task<std::string> WaitFor(absl::Duration timeout) const = 0;
  virtual Task<std::string> AwaitShielded() const = 0;
  virtual std::unique_ptr<Thing> Shielded() const = 0;
  virtual DoneCallbackToken AddCallback(std::function<void()> callback) const = 0;
  virtual bool RemoveCallback(const DoneCallbackToken& token) const = 0;
};

template <class T>
class ThingOf final : public Thing {
 public:
  explicit ThingOf(Future<T> future) : future_(std::move(future)) {}
  const Future<T>& future() const { return future_; }

  bool Cancel() const override { return future_.Cancel(); }
  internal::FutureCore& core() const override { return *future_.core().get(); }
  std::string Result() const override { return Show(future_.result()); }
  // Each keeps the future itself: the name may get another meaning meanwhile.
  Task<std::string> Await() const override { return AwaitFuture(future_); }
  Task<std::string> WaitFor(absl::Duration timeout) const override { return WaitForFuture(future_, timeout); }
  Task<std::string> AwaitShielded() const override { return AwaitFuture(Shield(future_)); }
  std::unique_ptr<Thing> Shielded() const override { return std::make_unique<ThingOf>(Shield(future_)); }
  DoneCallbackToken AddCallback(std::function<void()> callback) const override {
    return future_.AddDoneCallback([callback = std::move(callback)](const Future<T>&) { callback(); });
  }
  bool RemoveCallback(const DoneCallbackToken& token) const override { return future_.RemoveDoneCallback(token); }

 private:
  static Task<std::string> AwaitFuture(Future<T> future) {
    const T& value = co_await future;
    co_return Show(value);
  }
  static Task<std::string> WaitForFuture(Future<T> future, absl::Duration timeout) {
    absl::StatusOr<T> outcome = co_await troupe::WaitFor(future, timeout);
    if (!outcome.ok()) throw StatusError(outcome.status());
    co_return Show(*outcome);
  }

  Future<T> future_;
};

// One body under way.
struct Frame {
  std::string label;
  std::string value = "none";
  std::exception_ptr error = nullptr;  // what `rethrow` throws
};

class World;

// One end of a connection, and what it does when something happens.
class Wire final : public Protocol {
 public:
  Wire(World& world, std::string name, const Block& handlers, bool* lost);
  void ConnectionMade(Transport&) override { Handle("made", "made"); }
  void DataReceived(absl::Span<const char> data) override {
    Handle("data", absl::StrCat("data ", data.size(), " ", absl::string_view(data.data(), 1)));
  }
  bool EofReceived() override {
    Handle("eof", "eof");
    return handlers_.count("keep") > 0;
  }
  void PauseWriting() override { Handle("pause", "pause"); }
  void ResumeWriting() override { Handle("resume", "resume"); }
  void ConnectionLost(const absl::Status& reason) override {
    *lost_ = true;
    Handle("lost", reason.ok() ? "lost" : absl::StrCat("lost ", NameOf(reason)));
  }

 private:
  void Handle(const std::string& event, const std::string& note);

  World& world_;
  Frame frame_;
  std::map<std::string, const Block*> handlers_;
  bool* const lost_;
};

// ---------------------------------------------------------------------------------------------------- the world

// One scenario, and what happened in it.
class World {
 public:
  World(const Block& scenario, bool strict)
      : loop_(std::make_unique<EventLoop>(os_, EventLoopOptions{.strict_polling = strict})) {
    for (const Statement& statement : scenario) {
      const Words& words = statement.words();
      if (words[0] == "body") {
        bodies_[words[1]] = &statement.block();
      } else if (words[0] == "generator") {
        generators_[words[1]] = &statement.block();
      } else if (words[0] == "protocol") {
        protocols_[words[1]] = &statement.block();
      } else {
        program_.push_back(&statement);
      }
    }
    // What is sent arrives at the next poll, as on a real socket pair.
    os_.kernel().SetLink(os_, os_, {.latency = absl::ZeroDuration()});
    loop_->SetExceptionHandler([this](EventLoop&, const ExceptionContext& context) { Report(context); });
  }

  std::string Run();

  void Log(const Frame& frame, const std::string& text) {
    if (over_) return;
    absl::StrAppend(&trace_, loop_->Time().ToSeconds(), " ", frame.label, ": ", text, "\n");
  }
  void BlockNow(Frame& frame, const Block& block) {
    for (const Statement& statement : block) StatementNow(frame, statement);
  }

 private:
  struct WireEnd {
    TransportPtr transport;
    bool lost = false;
  };

  void Report(const ExceptionContext& context) {
    if (absl::EndsWith(context.message, "was never retrieved")) {
      unretrieved_.push_back(NameOf(context.exception));
    } else if (context.exception && !absl::StrContains(context.message, "TaskGroup that had failed before")) {
      Log({"report"}, NameOf(context.exception));
    } else if (!context.status.ok() && absl::StartsWith(context.message, "Exception in callback")) {
      Log({"report"}, NameOf(context.status));
    }
  }

  // ---- statements that do not wait
  bool StatementNow(Frame& frame, const Statement& statement);
  bool FutureNow(Frame& frame, const Words& words, const Statement& statement);
  bool TransportNow(Frame& frame, const Words& words);
  bool OutsideNow(Frame& frame, const Words& words, const Statement& statement);
  static std::string Received(const Words& words, const std::string& bytes);
  std::function<void()> Callback(const std::string& label, const Block& block) {
    return [this, frame = std::make_shared<Frame>(Frame{label}), &block] { BlockNow(*frame, block); };
  }
  const Thing& ThingNamed(const std::string& name) const { return *Named(things_, name); }
  Transport& TransportNamed(const std::string& name) { return *Named(wires_, name)->transport; }
  const Future<std::string>& FutureNamed(const std::string& name) const {
    return dynamic_cast<const ThingOf<std::string>&>(*Named(things_, name)).future();
  }
  template <class T>
  void Name(const std::string& name, Future<T> future) {
    things_[name] = std::make_shared<ThingOf<T>>(std::move(future));
  }
  void NameTask(const std::string& name, const TaskHandle<std::string>& task) {
    Name<std::string>(name, task);
    tasks_.emplace_back(name, task);
  }
  void Connect(const Words& words);
  std::string CurrentTask() const;
  static const char* StateOf(internal::FutureCore& core) {
    static constexpr const char* kStates[] = {"pending", "done", "failed", "cancelled"};
    return kStates[core.state()];
  }

  // ---- statements that wait
  static bool IsBody(const std::string& word) { return absl::EndsWith(word, "()"); }
  Task<std::string> BodyTask(const std::string& word) {
    const std::string name = word.substr(0, word.size() - 2);
    return RunBody(name, name);
  }
  // Names of futures, and bodies, which start.
  std::vector<Future<std::string>> Awaitables(Words::const_iterator from, Words::const_iterator to) {
    std::vector<Future<std::string>> futures;
    for (; from != to; ++from) futures.push_back(IsBody(*from) ? EnsureFuture(BodyTask(*from)) : FutureNamed(*from));
    return futures;
  }
  Future<std::vector<std::string>> GatherAll(const Words& words, size_t from);
  Future<std::vector<Future<std::string>>> SettleAll(const Words& words, size_t from) {
    return GatherSettled(Awaitables(words.begin() + from, words.end()));
  }

  Task<std::string> RunBody(std::string label, std::string name) {
    Frame frame{std::move(label)};
    co_await RunBlock(frame, *Named(bodies_, name));
    co_return frame.value;
  }
  // True: it returned.
  Task<bool> RunBlock(Frame& frame, const Block& block) {
    for (const Statement& statement : block) {
      if (statement.words()[0] != "repeat" && StatementNow(frame, statement)) continue;
      const bool returned = co_await RunWaiting(frame, statement);
      if (returned) co_return true;
    }
    co_return false;
  }
  Task<bool> RunWaiting(Frame& frame, const Statement& statement);
  Task<bool> RunRepeat(Frame& frame, const Statement& statement) {
    for (int64_t i = Number(statement.words()[1]); i > 0; --i) {
      const bool returned = co_await RunBlock(frame, statement.block());
      if (returned) co_return true;
    }
    co_return false;
  }
  Task<bool> RunTry(Frame& frame, const Statement& statement);
  // Awaits something and notes its value.
  Task<bool> Note(Frame& frame, std::string prefix, Task<std::string> task) {
    const std::string value = co_await std::move(task);
    Log(frame, absl::StrCat(prefix, " -> ", value));
    co_return false;
  }
  template <class T>
  Task<bool> NoteFuture(Frame& frame, std::string prefix, Future<T> future) {
    return Note(frame, std::move(prefix), ThingOf<T>(std::move(future)).Await());
  }
  static Task<bool> Silent(Task<void> task) {
    co_await std::move(task);
    co_return false;
  }
  Task<std::string> WaitForBody(Task<std::string> task, absl::Duration timeout) {
    absl::StatusOr<std::string> outcome = co_await WaitFor(std::move(task), timeout);
    if (!outcome.ok()) throw StatusError(outcome.status());
    co_return *std::move(outcome);
  }
  Task<bool> RunReceive(Frame& frame, const Words& words) {
    const absl::StatusOr<std::string> bytes =
        co_await SockRecv(*loop_, Named(descriptors_, words[1]), static_cast<size_t>(Number(words[2])));
    if (!bytes.ok()) throw StatusError(bytes.status());
    Log(frame, Received(words, *bytes));
    co_return false;
  }
  Task<bool> RunSendAll(Frame& frame, const Words& words) {
    std::string bytes;
    for (int64_t i = Number(words[3]); i > 0; --i) bytes += words[2];
    const absl::Status sent = co_await SockSendAll(*loop_, Named(descriptors_, words[1]), bytes);
    if (!sent.ok()) throw StatusError(sent);
    Log(frame, absl::StrCat("sendall ", words[1], " done"));
    co_return false;
  }
  Task<bool> RunWait(Frame& frame, const Words& words);
  Task<bool> RunCompleted(Frame& frame, const Words& words);
  Task<bool> RunGroup(Frame& frame, const Words& words);
  Task<bool> RunWith(Frame& frame, const Statement& statement);
  Task<std::string> RunNext(std::string name) {
    AsyncGenerator<std::string>& generator = Named(running_generators_, name);
    std::optional<std::string> value = co_await generator.Next();
    co_return value.has_value() ? *value : "end";
  }
  AsyncGenerator<std::string> RunGenerator(std::string label, const Block& block);

  // ---- the program
  void RunProgram();
  void Settle();
  void Finish();

  testing::SimOs os_{1, testing::SimHostOptions{.worker_latency = absl::Milliseconds(500)}};  // as in simulated.py
  std::unique_ptr<EventLoop> loop_;
  std::string trace_;
  std::vector<std::string> unretrieved_;
  int steps_ = 0;
  bool over_ = false;
  bool leave_ = false;
  absl::Duration settled_;

  std::map<std::string, const Block*> bodies_;
  std::map<std::string, const Block*> generators_;
  std::map<std::string, const Block*> protocols_;
  std::vector<const Statement*> program_;

  std::map<std::string, std::shared_ptr<Thing>> things_;
  std::map<std::string, Promise<std::string>> promises_;
  std::vector<std::pair<std::string, TaskHandle<std::string>>> tasks_;
  std::map<std::string, Handle> handles_;
  std::map<std::string, std::pair<std::shared_ptr<Thing>, DoneCallbackToken>> callbacks_;
  std::map<std::string, std::unique_ptr<Event>> events_;
  std::map<std::string, std::unique_ptr<Semaphore>> semaphores_;
  std::map<std::string, std::unique_ptr<Mutex>> mutexes_;
  std::map<std::string, std::unique_ptr<Queue<std::string>>> queues_;
  std::map<std::string, AsyncGenerator<std::string>> running_generators_;
  std::map<std::string, int> descriptors_;
  std::map<std::string, std::unique_ptr<WireEnd>> wires_;
  std::vector<WireEnd*> wires_in_order_;
};

Wire::Wire(World& world, std::string name, const Block& handlers, bool* lost)
    : world_(world), frame_{std::move(name)}, lost_(lost) {
  for (const Statement& statement : handlers) {
    for (const Part& handler : statement.parts) handlers_[handler.words[0]] = &handler.block;
  }
}

void Wire::Handle(const std::string& event, const std::string& note) {
  world_.Log(frame_, note);
  if (const auto found = handlers_.find(event); found != handlers_.end()) world_.BlockNow(frame_, *found->second);
}

// ---------------------------------------------------------------------------------------------------- without waiting

bool World::StatementNow(Frame& frame, const Statement& statement) {
  if (++steps_ > kStepsMax) throw Fatal("too many steps");
  const Words& words = statement.words();
  const std::string& verb = words[0];
  if (verb == "log") {
    Log(frame, absl::StrJoin(words.begin() + 1, words.end(), " "));
  } else if (verb == "raise") {
    Throw(words[1]);
  } else if (verb == "rethrow") {
    std::rethrow_exception(frame.error);
  } else if (verb == "repeat") {
    for (int64_t i = Number(words[1]); i > 0; --i) BlockNow(frame, statement.block());
  } else if (verb == "soon") {
    handles_[words[1]] = loop_->CallSoon(Callback(words[1], statement.block()));
  } else if (verb == "later") {
    handles_[words[1]] = loop_->CallLater(Seconds(words[2]), Callback(words[1], statement.block()));
  } else if (verb == "at") {
    handles_[words[1]] = loop_->CallAt(MonotonicTime() + Seconds(words[2]), Callback(words[1], statement.block()));
  } else if (verb == "drop") {
    Named(handles_, words[1]).Cancel();
  } else if (verb == "spawn") {
    NameTask(words[1], loop_->CreateTask(RunBody(words[1], words[2]), words[1]));
  } else if (verb == "current") {
    Log(frame, absl::StrCat("current ", CurrentTask()));
  } else if (verb == "stop") {
    loop_->Stop();
  } else if (verb == "setvar") {
    kVariable.Set(words[1]);
  } else if (verb == "getvar") {
    Log(frame, absl::StrCat("variable ", kVariable.Get()));
  } else if (verb == "event") {
    events_[words[1]] = std::make_unique<Event>();
  } else if (verb == "eset") {
    Named(events_, words[1])->Set();
  } else if (verb == "eclear") {
    Named(events_, words[1])->Clear();
  } else if (verb == "semaphore") {
    semaphores_[words[1]] = std::make_unique<Semaphore>(Number(words[2]));
  } else if (verb == "lock") {
    mutexes_[words[1]] = std::make_unique<Mutex>();
  } else if (verb == "queue") {
    queues_[words[1]] = std::make_unique<Queue<std::string>>(Number(words[2]));
  } else if (verb == "tryput") {
    const bool put = Named(queues_, words[1])->TryPut(std::string(words[2]));
    Log(frame, absl::StrCat("tryput ", words[1], put ? " -> yes" : " -> no"));
  } else if (verb == "tryget") {
    Log(frame, absl::StrCat("tryget ", words[1], " -> ", Named(queues_, words[1])->TryGet().value_or("nothing")));
  } else if (verb == "taskdone") {
    Named(queues_, words[1])->TaskDone();
  } else if (verb == "generate") {
    running_generators_[words[1]] = RunGenerator(words[1], *Named(generators_, words[2]));
  } else {
    return FutureNow(frame, words, statement) || TransportNow(frame, words) || OutsideNow(frame, words, statement);
  }
  return true;
}

bool World::FutureNow(Frame& frame, const Words& words, const Statement& statement) {
  const std::string& verb = words[0];
  if (verb == "future") {
    Promise<std::string> promise(*loop_);
    Name<std::string>(words[1], promise.future());
    promises_.insert_or_assign(words[1], std::move(promise));
  } else if (verb == "set") {
    Named(promises_, words[1]).SetValue(words[2]);
  } else if (verb == "fail") {
    Named(promises_, words[1]).SetError(ErrorOf(words[2]));
  } else if (verb == "cancel") {
    const bool cancelled = words[1] == "self" ? internal::Root::Current()->Cancel() : ThingNamed(words[1]).Cancel();
    Log(frame, absl::StrCat("cancel ", words[1], " -> ", cancelled ? "yes" : "no"));
  } else if (verb == "state") {
    Log(frame, absl::StrCat(words[1], " is ", StateOf(ThingNamed(words[1]).core())));
  } else if (verb == "result") {
    std::string result;
    try {
      result = absl::StrCat("value ", ThingNamed(words[1]).Result());
    } catch (...) {  // shown
      result = NameOf(std::current_exception());
    }
    Log(frame, absl::StrCat("result ", words[1], " -> ", result));
  } else if (verb == "callback") {
    const std::shared_ptr<Thing> thing = Named(things_, words[1]);
    callbacks_[words[2]] = {thing, thing->AddCallback(Callback(words[2], statement.block()))};
  } else if (verb == "uncallback") {
    const auto& [thing, token] = Named(callbacks_, words[1]);
    Log(frame, absl::StrCat("uncallback ", words[1], " -> ", thing->RemoveCallback(token) ? "yes" : "no"));
  } else if (verb == "gathering") {
    Name(words[1], GatherAll(words, 2));
  } else if (verb == "settling") {
    Name(words[1], SettleAll(words, 2));
  } else if (verb == "shielding") {
    things_[words[1]] = ThingNamed(words[2]).Shielded();
  } else {
    return false;
  }
  return true;
}

bool World::OutsideNow(Frame& frame, const Words& words, const Statement& statement) {
  const std::string& verb = words[0];
  const auto log_removed = [&](bool removed) {
    Log(frame, absl::StrCat(verb, " ", words[1], " -> ", removed ? "yes" : "no"));
  };
  if (verb == "sockets") {
    os_.kernel().SetSendBufferBytes(Number(words[3]));
    int fds[2];
    CHECK_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
    descriptors_[words[1]] = fds[0];
    descriptors_[words[2]] = fds[1];
  } else if (verb == "reader") {
    loop_->AddReader(Named(descriptors_, words[1]), Callback(words[2], statement.block()));
  } else if (verb == "writer") {
    loop_->AddWriter(Named(descriptors_, words[1]), Callback(words[2], statement.block()));
  } else if (verb == "unreader") {
    log_removed(loop_->RemoveReader(Named(descriptors_, words[1])));
  } else if (verb == "unwriter") {
    log_removed(loop_->RemoveWriter(Named(descriptors_, words[1])));
  } else if (verb == "take") {
    std::string bytes(Number(words[2]), ' ');
    const int64_t received = os_.Recv(Named(descriptors_, words[1]), absl::MakeSpan(bytes));
    if (received < 0 && received != -EAGAIN) throw StatusError(OsError(static_cast<int>(received), verb));
    bytes.resize(received < 0 ? 0 : static_cast<size_t>(received));
    Log(frame, received < 0 ? absl::StrCat("take ", words[1], " -> nothing") : Received(words, bytes));
  } else if (verb == "give") {
    std::string bytes;
    for (int64_t i = Number(words[3]); i > 0; --i) bytes += words[2];
    const iovec piece = {bytes.data(), bytes.size()};
    const int64_t sent = os_.Send(Named(descriptors_, words[1]), absl::MakeConstSpan(&piece, 1));
    if (sent < 0 && sent != -EAGAIN) throw StatusError(OsError(static_cast<int>(sent), verb));
    Log(frame, absl::StrCat("give ", words[1], " -> ", sent < 0 ? "nothing" : absl::StrCat(sent)));
  } else if (verb == "sockeof") {
    os_.ShutdownWrite(Named(descriptors_, words[1]));
  } else if (verb == "sockclose") {
    os_.Close(Named(descriptors_, words[1]));
  } else if (verb == "signal") {
    const auto added =
        loop_->AddSignalHandler(static_cast<int>(Number(words[1])), Callback(words[2], statement.block()));
    if (!added.ok()) throw InvalidState(std::string(added.message()));
  } else if (verb == "unsignal") {
    log_removed(loop_->RemoveSignalHandler(static_cast<int>(Number(words[1]))));
  } else if (verb == "kill") {
    os_.RaiseSignal(static_cast<int>(Number(words[1])));
  } else if (verb == "execute") {
    const auto work = [block = Callback(words[1], statement.block())]() -> std::string {
      block();
      return "worked";
    };
    Name<std::string>(words[1], RunInExecutor(*loop_, work));
  } else {
    return false;
  }
  return true;
}

// "take A -> 3 x": how many bytes, and the first.
std::string World::Received(const Words& words, const std::string& bytes) {
  return absl::StrCat(words[0], " ", words[1], " -> ", bytes.size(), " ", bytes.empty() ? "end" : bytes.substr(0, 1));
}

bool World::TransportNow(Frame& frame, const Words& words) {
  const std::string& verb = words[0];
  if (verb == "connect") {
    Connect(words);
  } else if (verb == "write") {
    std::string text;
    for (int64_t i = words.size() > 3 ? Number(words[3]) : 1; i > 0; --i) text += words[2];
    TransportNamed(words[1]).Write(absl::MakeConstSpan(text));
  } else if (verb == "writelines") {
    std::vector<absl::Span<const char>> pieces;
    for (auto word = words.begin() + 2; word != words.end(); ++word) pieces.push_back(absl::MakeConstSpan(*word));
    TransportNamed(words[1]).Writev(pieces);
  } else if (verb == "weof") {
    TransportNamed(words[1]).WriteEof();
  } else if (verb == "close") {
    TransportNamed(words[1]).Close();
  } else if (verb == "abort") {
    TransportNamed(words[1]).Abort();
  } else if (verb == "pause") {
    TransportNamed(words[1]).PauseReading();
  } else if (verb == "resume") {
    TransportNamed(words[1]).ResumeReading();
  } else if (verb == "limits") {
    WriteBufferLimits limits;
    if (words[2] != "-") limits.high = Number(words[2]);
    if (words[3] != "-") limits.low = Number(words[3]);
    if (!TransportNamed(words[1]).SetWriteBufferLimits(limits).ok()) Log(frame, "limits refused");
  } else if (verb == "info") {
    const Transport& transport = TransportNamed(words[1]);
    Log(frame,
        absl::StrCat(words[1], " buffered ", transport.write_buffer_size(), " marks ", transport.write_high_mark(), " ",
                     transport.write_low_mark(), transport.is_closing() ? " closing" : " open",
                     transport.is_reading() ? " reading" : " paused"));
  } else {
    return false;
  }
  return true;
}

void World::Connect(const Words& words) {
  os_.kernel().SetSendBufferBytes(Number(words[3]));
  int fds[2];
  CHECK_EQ(os_.SocketPair(AF_UNIX, SOCK_STREAM, fds), 0);
  for (const int end : {0, 1}) {
    const std::string& name = words[1 + end];
    auto wire = std::make_unique<WireEnd>();
    auto protocol = std::make_unique<Wire>(*this, name, *Named(protocols_, name), &wire->lost);
    wire->transport = MakeStreamTransport(*loop_, fds[end], std::move(protocol));
    wires_in_order_.push_back(wire.get());
    wires_[name] = std::move(wire);
  }
}

std::string World::CurrentTask() const {
  const auto* root = internal::Root::Current();
  if (root == nullptr) return "none";
  for (const auto& [name, task] : tasks_) {
    if (task.core()->root() == root) return name;
  }
  return "other";
}

Future<std::vector<std::string>> World::GatherAll(const Words& words, size_t from) {
  bool only_bodies = true;
  for (size_t i = from; i < words.size(); ++i) only_bodies = only_bodies && IsBody(words[i]);
  if (!only_bodies) return Gather(Awaitables(words.begin() + from, words.end()));
  std::vector<Task<std::string>> tasks;
  for (size_t i = from; i < words.size(); ++i) tasks.push_back(BodyTask(words[i]));
  return Gather(std::move(tasks));
}

// ---------------------------------------------------------------------------------------------------- waiting

Task<bool> World::RunWaiting(Frame& frame, const Statement& statement) {
  const Words& words = statement.words();
  const std::string& verb = words[0];
  if (verb == "repeat") return RunRepeat(frame, statement);
  if (verb == "try") return RunTry(frame, statement);
  if (verb == "sleep") return Silent(Sleep(Seconds(words[1])));
  if (verb == "await") return Note(frame, absl::StrCat("await ", words[1]), ThingNamed(words[1]).Await());
  if (verb == "call") {
    return Note(frame, absl::StrCat("call ", words[1]), RunBody(absl::StrCat(frame.label, ".", words[1]), words[1]));
  }
  if (verb == "gather") return NoteFuture(frame, verb, GatherAll(words, 1));
  if (verb == "settle") return NoteFuture(frame, verb, SettleAll(words, 1));
  if (verb == "shield") {
    if (IsBody(words[1])) return NoteFuture(frame, verb, Shield(BodyTask(words[1])));
    return Note(frame, verb, ThingNamed(words[1]).AwaitShielded());
  }
  if (verb == "waitfor") {
    const absl::Duration timeout = words[1] == "-" ? absl::InfiniteDuration() : Seconds(words[1]);
    if (IsBody(words[2])) return Note(frame, verb, WaitForBody(BodyTask(words[2]), timeout));
    return Note(frame, verb, ThingNamed(words[2]).WaitFor(timeout));
  }
  if (verb == "recv") return RunReceive(frame, words);
  if (verb == "sendall") return RunSendAll(frame, words);
  if (verb == "wait") return RunWait(frame, words);
  if (verb == "completed") return RunCompleted(frame, words);
  if (verb == "group") return RunGroup(frame, words);
  if (verb == "ewait") return Silent(Named(events_, words[1])->Wait());
  if (verb == "with") return RunWith(frame, statement);
  if (verb == "put") return Silent(Named(queues_, words[1])->Put(words[2]));
  if (verb == "get") return Note(frame, absl::StrCat("get ", words[1]), Named(queues_, words[1])->Get());
  if (verb == "join") return Silent(Named(queues_, words[1])->Join());
  if (verb == "next") return Note(frame, absl::StrCat("next ", words[1]), RunNext(words[1]));
  if (verb == "aclose") return Silent(Named(running_generators_, words[1]).Close());
  CHECK_EQ(verb, "return") << "no such statement";
  frame.value = words[1];
  return [](bool returned) -> Task<bool> { co_return returned; }(true);
}

Task<bool> World::RunTry(Frame& frame, const Statement& statement) {
  std::exception_ptr error;
  bool returned = false;
  try {
    returned = co_await RunBlock(frame, statement.block());
  } catch (...) {  // handled below, or rethrown
    error = std::current_exception();
  }
  const Block* last = nullptr;
  bool handled = false;
  for (size_t i = 1; i < statement.parts.size(); ++i) {
    const Part& part = statement.parts[i];
    if (part.words[0] == "finally") {
      last = &part.block;
    } else if (error && !handled && Catches(part.words[1], error)) {
      handled = true;
      const std::exception_ptr outer = std::exchange(frame.error, std::exchange(error, nullptr));
      try {
        returned = co_await RunBlock(frame, part.block);
      } catch (...) {  // rethrown below
        error = std::current_exception();
      }
      frame.error = outer;
    }
  }
  if (last != nullptr && (!error || (NameOf(error) != "fatal" && NameOf(error) != "stalled"))) {
    const bool over = co_await RunBlock(frame, *last);
    if (over) co_return true;
  }
  if (error) std::rethrow_exception(error);
  co_return returned;
}

Task<bool> World::RunWait(Frame& frame, const Words& words) {
  WaitOptions options;
  if (words[1] == "first") options.return_when = WaitUntil::kFirstCompleted;
  if (words[1] == "failed") options.return_when = WaitUntil::kFirstException;
  if (words[2] != "-") options.timeout = Seconds(words[2]);
  const std::vector<Future<std::string>> futures = Awaitables(words.begin() + 3, words.end());
  const WaitResult<Future<std::string>> result = co_await Wait(futures, options);
  std::string text = "wait -> done";
  for (const Future<std::string>& done : result.done) {
    for (size_t i = 0; i < futures.size(); ++i) {
      if (futures[i].core().get() != done.core().get()) continue;
      absl::StrAppend(&text, " ", words[3 + i]);
      break;
    }
  }
  Log(frame, text);
  co_return false;
}

Task<bool> World::RunCompleted(Frame& frame, const Words& words) {
  const absl::Duration timeout = words[1] == "-" ? absl::InfiniteDuration() : Seconds(words[1]);
  // In which order those come that are done already asyncio leaves open.
  std::vector<Future<std::string>> pending = Awaitables(words.begin() + 2, words.end());
  std::erase_if(pending, [](const Future<std::string>& future) { return future.done(); });
  AsCompleted<std::string> completed(std::move(pending), timeout);
  while (completed.more()) {
    std::string text;
    try {
      absl::StatusOr<std::string> next = co_await completed.Next();
      text = next.ok() ? *next : NameOf(next.status());
    } catch (const Oops& oops) {
      text = oops.what();
    }
    Log(frame, absl::StrCat("completed -> ", text));
  }
  co_return false;
}

Task<bool> World::RunGroup(Frame& frame, const Words& words) {
  TaskGroup group;
  for (auto word = words.begin() + 1; word != words.end(); ++word) {
    const std::pair<std::string, std::string> names = absl::StrSplit(*word, ':');
    NameTask(names.first, group.Spawn(RunBody(names.first, names.second), names.first));
  }
  const absl::Status status = co_await group.Join();
  if (!status.ok()) throw StatusError(status);
  Log(frame, "group done");
  co_return false;
}

Task<bool> World::RunWith(Frame& frame, const Statement& statement) {
  const std::string& name = statement.words()[1];
  Semaphore::Permit permit;
  if (const auto mutex = mutexes_.find(name); mutex != mutexes_.end()) {
    permit = co_await mutex->second->Lock();
  } else {
    permit = co_await Named(semaphores_, name)->Acquire();
  }
  const bool returned = co_await RunBlock(frame, statement.block());
  co_return returned;
}

AsyncGenerator<std::string> World::RunGenerator(std::string label, const Block& block) {
  Frame frame{std::move(label)};
  for (const Statement& statement : block) {
    if (statement.words()[0] == "yield") {
      co_yield statement.words()[1];
      continue;
    }
    const Block alone(1, statement);
    if (statement.words().empty() || statement.words()[0] != "try") {
      co_await RunBlock(frame, alone);
      continue;
    }
    std::exception_ptr error;
    try {
      for (const Statement& inner : statement.block()) {
        if (inner.words()[0] == "yield") {
          co_yield inner.words()[1];
        } else {
          const Block one(1, inner);
          co_await RunBlock(frame, one);
        }
      }
    } catch (...) {  // rethrown below
      error = std::current_exception();
    }
    co_await RunBlock(frame, statement.parts[1].block);
    if (error) std::rethrow_exception(error);
  }
}

// ---------------------------------------------------------------------------------------------------- the program

void World::RunProgram() {
  Frame top{"loop"};
  for (const Statement* statement : program_) {
    const Words& words = statement->words();
    try {
      if (words[0] == "run") {
        const std::string value = loop_->RunUntilComplete(RunBody(words[1], words[1]));
        Log(top, absl::StrCat("run -> ", value));
      } else if (words[0] == "runfuture") {
        const std::string value = loop_->RunUntilComplete(FutureNamed(words[1]));
        Log(top, absl::StrCat("runfuture -> ", value));
      } else if (words[0] == "forever") {
        loop_->RunForever();
        Log(top, "stopped");
      } else if (words[0] == "leave") {
        leave_ = true;
      } else if (words[0] == "closeloop") {
        loop_->Close();
      } else {
        StatementNow(top, *statement);
      }
    } catch (...) {  // shown
      Log(top, absl::StrCat(words[0], " -> ", NameOf(std::current_exception())));
    }
  }
}

// Runs until nothing more can happen by itself, for a time that is always the same: what is left behind in the heap
// does not matter.
void World::Settle() {
  bool over = false;
  settled_ += kSettled;
  loop_->CallAt(MonotonicTime() + settled_, [&] {
    over = true;
    loop_->Stop();
  });
  for (int i = 0; i < 100 && !over; ++i) {
    try {
      loop_->RunForever();
    } catch (const Fatal&) {
      Log({"loop"}, "settle -> fatal");
    }
  }
}

void World::Finish() {
  if (!loop_->IsClosed()) {
    Settle();
    for (int i = 0; i < 5; ++i) {
      std::vector<TaskHandle<std::string>> left;
      for (const auto& [name, task] : tasks_) {
        if (!task.done()) left.push_back(task);
      }
      if (left.empty() || leave_) break;
      Log({"loop"}, absl::StrCat("cancelling ", left.size()));
      for (const auto& task : left) task.Cancel();
      left.clear();
      Settle();
    }
    for (const WireEnd* wire : wires_in_order_) {
      if (!wire->lost) wire->transport->Abort();
    }
    Settle();
  }
  for (const auto& [name, task] : tasks_) Log({name}, StateOf(*task.core().get()));
  over_ = true;
  things_.clear();
  promises_.clear();
  tasks_.clear();
  callbacks_.clear();
  handles_.clear();
  wires_.clear();
  running_generators_.clear();
  if (!loop_->IsClosed()) Settle();
  loop_->Close();
  std::sort(unretrieved_.begin(), unretrieved_.end());
  for (const std::string& name : unretrieved_) absl::StrAppend(&trace_, "unretrieved ", name, "\n");
}

std::string World::Run() {
  Context context;
  ContextScope scope(context);
  RunProgram();
  Finish();
  return std::move(trace_);
}

// What stands between "=== " and the next one, without comments and expectations, which only the test reads.
int Main(int argc, char** argv) {
  const bool strict = argc < 2 || std::string(argv[1]) == "strict";
  const std::string all{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  for (const absl::string_view chunk : absl::StrSplit(all, "=== ", absl::SkipEmpty())) {
    const std::pair<std::string, std::string> scenario = absl::StrSplit(chunk, absl::MaxSplits('\n', 1));
    const Block block = Parse(scenario.second);
    std::cout << "=== " << scenario.first << "\n" << std::flush;  // so that a crash names its scenario
    World world(block, strict);
    std::cout << world.Run();
  }
  return 0;
}

}  // namespace
}  // namespace troupe

int main(int argc, char** argv) { return troupe::Main(argc, argv); }
