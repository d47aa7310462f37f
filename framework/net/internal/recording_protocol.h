// RecordingProtocol: writes down what it is told, and does what a test tells it to do then. For the tests of this
// folder.
//
//   Recording a;
//   auto protocol = a.NewProtocol();         // owned by a transport soon
//   a.on_made = [](Transport& t) { t.Write("hello"); };
//   EXPECT_THAT(a.log, ElementsAre("made", "data hi", "eof", "lost OK"));
//
// The Recording outlives its protocols. Data that comes in pieces is one entry of the log, unless `split` is set.
#ifndef TROUPE_NET_INTERNAL_RECORDING_PROTOCOL_H_
#define TROUPE_NET_INTERNAL_RECORDING_PROTOCOL_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"

namespace troupe::internal {

struct Recording {
  std::vector<std::string> log;
  absl::Status reason = absl::UnknownError("not lost yet");
  int alive = 0;  // protocols
  size_t received = 0;
  bool split = false;
  bool keep_open = false;  // what EofReceived answers
  std::function<void(Transport&)> on_made, on_eof, on_pause, on_resume, on_lost;
  std::function<void(Transport&, absl::Span<const char>)> on_data;
  // BufferedProtocol only.
  std::function<absl::Span<char>(int64_t)> get_buffer;

  std::unique_ptr<BaseProtocol> NewProtocol();
  std::unique_ptr<BaseProtocol> NewBufferedProtocol();

  bool lost() const { return !log.empty() && absl::StartsWith(log.back(), "lost"); }
  size_t Count(absl::string_view entry) const {
    return static_cast<size_t>(std::count(log.begin(), log.end(), std::string(entry)));
  }
  void Data(absl::Span<const char> data) {
    received += data.size();
    const absl::string_view text(data.data(), data.size());
    if (!split && !log.empty() && absl::StartsWith(log.back(), "data ")) {
      absl::StrAppend(&log.back(), text);
    } else {
      log.push_back(absl::StrCat("data ", text));
    }
  }
};

template <class Base>
class RecordingBase : public Base {
 public:
  explicit RecordingBase(Recording& recording) : recording_(recording) { ++recording_.alive; }
  ~RecordingBase() override { --recording_.alive; }
  void ConnectionMade(Transport& transport) override { Note("made", recording_.on_made, transport); }
  bool EofReceived() override {
    Note("eof", recording_.on_eof, this->transport());
    return recording_.keep_open;
  }
  void PauseWriting() override { Note("pause", recording_.on_pause, this->transport()); }
  void ResumeWriting() override { Note("resume", recording_.on_resume, this->transport()); }
  void ConnectionLost(const absl::Status& reason) override {
    recording_.reason = reason;
    Note(absl::StrCat("lost ", absl::StatusCodeToString(reason.code())), recording_.on_lost, this->transport());
  }

 protected:
  void Note(std::string entry, const std::function<void(Transport&)>& then, Transport& transport) {
    recording_.log.push_back(std::move(entry));
    if (then) then(transport);
  }
  Recording& recording_;
};

class RecordingProtocol final : public RecordingBase<Protocol> {
 public:
  using RecordingBase::RecordingBase;
  void DataReceived(absl::Span<const char> data) override {
    recording_.Data(data);
    if (recording_.on_data) recording_.on_data(transport(), data);
  }
};

class RecordingBufferedProtocol final : public RecordingBase<BufferedProtocol> {
 public:
  using RecordingBase::RecordingBase;
  absl::Span<char> GetBuffer(int64_t size_hint) override {
    last_ = recording_.get_buffer ? recording_.get_buffer(size_hint) : absl::MakeSpan(own_);
    return last_;
  }
  void BufferUpdated(size_t size) override {
    recording_.Data(last_.first(size));
    if (recording_.on_data) recording_.on_data(transport(), last_.first(size));
  }

 private:
  char own_[64];
  absl::Span<char> last_;
};

inline std::unique_ptr<BaseProtocol> Recording::NewProtocol() { return std::make_unique<RecordingProtocol>(*this); }
inline std::unique_ptr<BaseProtocol> Recording::NewBufferedProtocol() {
  return std::make_unique<RecordingBufferedProtocol>(*this);
}

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_RECORDING_PROTOCOL_H_
