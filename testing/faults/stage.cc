#include "troupe/testing/faults/stage.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_join.h"
#include "troupe/base/errors.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/os_errors.h"

namespace troupe::testing {
namespace {

// More than any scenario needs with the longest time limit that one fault can cost it.
constexpr absl::Duration kTimeMax = absl::Minutes(5);
// Things that happen: a loop that spins comes here soon, also where no time passes.
constexpr int64_t kStepsMax = 100'000;

// Errors that say that the connection is gone; where they are made up, it must go.
bool MeansConnectionGone(absl::string_view operation, int error) {
  if (error != ECONNRESET && error != EPIPE && error != ENOTCONN && error != ETIMEDOUT) return false;
  return operation == "Recv" || operation == "Send" || operation == "SendFile" || operation == "ShutdownWrite";
}

}  // namespace

void Life::Made() {
  if (++made_ > 1) stage_.Broken(absl::StrCat(name_, ": ConnectionMade twice"));
  if (lost_ > 0) stage_.Broken(absl::StrCat(name_, ": ConnectionMade after ConnectionLost"));
}

void Life::Heard(absl::string_view what) {
  if (made_ == 0) stage_.Broken(absl::StrCat(name_, ": ", what, " before ConnectionMade"));
  if (lost_ > 0) stage_.Broken(absl::StrCat(name_, ": ", what, " after ConnectionLost"));
}

void Life::Lost(const absl::Status& reason) {
  if (made_ == 0) stage_.Broken(absl::StrCat(name_, ": ConnectionLost before ConnectionMade"));
  if (++lost_ > 1) stage_.Broken(absl::StrCat(name_, ": ConnectionLost twice"));
  reason_ = reason;
}

namespace {

class ScriptedProtocol final : public Protocol {
 public:
  ScriptedProtocol(Life& life, Script script) : life_(life), token_(life.Token()), script_(std::move(script)) {}
  void ConnectionMade(Transport& transport) override {
    life_.Made();
    if (script_.made) script_.made(transport);
  }
  void DataReceived(absl::Span<const char> data) override {
    life_.Heard("DataReceived");
    if (script_.data) script_.data(transport(), data);
  }
  bool EofReceived() override {
    life_.Heard("EofReceived");
    return script_.eof && script_.eof(transport());
  }
  void PauseWriting() override { life_.Heard("PauseWriting"); }
  void ResumeWriting() override { life_.Heard("ResumeWriting"); }
  void ConnectionLost(const absl::Status& reason) override { life_.Lost(reason); }

 private:
  Life& life_;
  const std::shared_ptr<int> token_;
  const Script script_;
};

}  // namespace

Stage::Stage(const std::optional<Fault>& fault)
    : hosts_{&world_.AddHost("server"), &world_.AddHost("client")}, fault_(fault) {
  for (size_t i = 0; i < hosts_.size(); ++i) Watch(i);
}

Stage::~Stage() {
  for (SimHost* host : hosts_) {
    host->os().SetFault(nullptr);
    host->TakeReports();
  }
}

void Stage::Watch(size_t host) {
  hosts_[host]->os().SetFault(
      [this, host](absl::string_view operation, int fd) { return OnCall(host, operation, fd); });
}

int Stage::OnCall(size_t host, absl::string_view operation, int fd) {
  if (shortened_ != nullptr) std::exchange(shortened_, nullptr)->SetIoLimits({});
  auto& calls = calls_[host];
  auto found = std::find_if(calls.begin(), calls.end(), [&](const auto& entry) { return entry.first == operation; });
  if (found == calls.end()) found = calls.insert(found, {std::string(operation), 0});
  const int call = ++found->second;
  if (!fault_.has_value() || fault_->host != hosts_[host]->name()) return 0;
  if (injected_) {
    if (world_.Now() >= shortage_end_) return 0;
    const absl::Span<const int> errors = OsErrorsOf(operation);
    return std::find(errors.begin(), errors.end(), fault_->error) == errors.end() ? 0 : fault_->error;
  }
  if (fault_->operation != operation || fault_->call != call) return 0;
  injected_ = true;
  if (fault_->is_short) {
    shortened_ = &hosts_[host]->os();
    shortened_->SetIoLimits({.recv_bytes_max = 1, .send_bytes_max = 1});
    return 0;
  }
  shortage_end_ = world_.Now() + fault_->lasting;
  if (fault_->is_end) hosts_[host]->os().HangUp(fd);
  if (MeansConnectionGone(operation, fault_->error)) hosts_[host]->os().Reset(fd);
  return fault_->error;
}

// ---- scenarios

void Stage::Asked(absl::string_view what) { ++open_questions_[std::string(what)]; }

void Stage::Answered(absl::string_view what, const absl::Status& status) {
  if (--open_questions_[std::string(what)] < 0) Broken(absl::StrCat(what, ": more answers than questions"));
  answers_.emplace_back(what, status);
}

void Stage::RunUntil(absl::FunctionRef<bool()> done) {
  world_.RunUntil([&] {
    if (done()) return true;
    if (world_.Now() - MonotonicTime() > kTimeMax)
      throw Stuck(absl::StrCat("not done after ", absl::FormatDuration(kTimeMax)));
    if (++steps_ > kStepsMax) throw Stuck(absl::StrCat("not done after ", kStepsMax, " steps"));
    return false;
  });
}

void Stage::RunFor(absl::Duration duration) {
  bool over = false;
  world_.kernel().After(duration, [&over] { over = true; });
  RunUntil([&over] { return over; });
}

void Stage::Recover() {
  if (world_.Now() < shortage_end_) RunFor(shortage_end_ - world_.Now());
}

Life& Stage::NewLife(absl::string_view name) {
  lives_.push_back(std::make_unique<Life>(*this, std::string(name)));
  return *lives_.back();
}

std::unique_ptr<Protocol> Stage::NewProtocol(Life& life, Script script) {
  return std::make_unique<ScriptedProtocol>(life, std::move(script));
}

bool Stage::AllLost() const {
  return std::all_of(lives_.begin(), lives_.end(), [](const auto& life) { return !life->made() || life->lost(); });
}

void Stage::Broken(absl::string_view text) { broken_.emplace_back(text); }

// ---- the sweep

void Stage::Finish() {
  took_ = world_.Now() - MonotonicTime();
  RunFor(absl::Seconds(1));
  for (const auto& [what, open] : open_questions_) {
    if (open > 0) Broken(absl::StrCat(what, ": no answer"));
  }
  for (const auto& life : lives_) {
    if (life->made() && !life->lost()) Broken(absl::StrCat(life->name(), ": ConnectionLost did not come"));
    if (life->alive()) Broken(absl::StrCat(life->name(), ": its protocol is left"));
  }
  for (SimHost* host : hosts_) {
    for (const troupe::internal::TaskNode& task : host->loop().tasks()) {
      Broken(absl::StrCat(host->name(), ": a task is left: ", task.DescribeTask()));
    }
    const std::vector<int> descriptors = host->os().OpenDescriptors();
    if (!descriptors.empty()) {
      Broken(absl::StrCat(host->name(), ": descriptors are left: ", absl::StrJoin(descriptors, " ")));
    }
    if (host->os().held_memory() != 0) {
      Broken(absl::StrCat(host->name(), ": held memory is left: ", host->os().held_memory().load()));
    }
    // Of a program whose status somebody else is said to have taken it has not been.
    const bool taken = fault_.has_value() && fault_->error == ECHILD;
    if (!taken && host->os().running_processes() + host->os().zombies() > 0) {
      Broken(absl::StrCat(host->name(), ": processes are left: ", host->os().running_processes(), ", zombies ",
                          host->os().zombies()));
    }
    for (std::string& report : host->TakeReports()) reports_.push_back(std::move(report));
  }
}

const std::vector<std::pair<std::string, int>>& Stage::Calls(absl::string_view host) const {
  return calls_[host == hosts_[0]->name() ? 0 : 1];
}

int Stage::CallsOf(absl::string_view host, absl::string_view operation) const {
  for (const auto& [name, calls] : Calls(host)) {
    if (name == operation) return calls;
  }
  return 0;
}

bool Stage::AnyLostByError() const {
  return std::any_of(lives_.begin(), lives_.end(), [](const auto& life) { return !life->reason().ok(); });
}

bool Stage::AnyRefused() const {
  return std::any_of(answers_.begin(), answers_.end(), [](const auto& answer) { return !answer.second.ok(); });
}

std::string Stage::Summary() const {
  std::vector<std::string> lines;
  for (const auto& [what, status] : answers_) {
    lines.push_back(absl::StrCat(what, ": ", absl::StatusCodeToString(status.code())));
  }
  for (const auto& life : lives_) {
    lines.push_back(absl::StrCat(life->name(), life->made() ? " made" : " not made", ", lost ",
                                 absl::StatusCodeToString(life->reason().code())));
  }
  std::sort(lines.begin(), lines.end());
  return absl::StrJoin(lines, "\n");
}

}  // namespace troupe::testing
