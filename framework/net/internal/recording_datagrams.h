// RecordingDatagrams: a DatagramProtocol that writes down what it is told, and does what a test tells it to do then. For
// the tests of this folder. As recording_protocol.h.
#ifndef TROUPE_NET_INTERNAL_RECORDING_DATAGRAMS_H_
#define TROUPE_NET_INTERNAL_RECORDING_DATAGRAMS_H_

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/base/os_error.h"
#include "troupe/base/socket_address.h"
#include "troupe/net/datagram.h"

namespace troupe::internal {

struct DatagramRecording {
  std::vector<std::string> log;
  std::vector<absl::Status> errors;
  SocketAddress from;  // of the last datagram
  absl::Status reason = absl::UnknownError("not lost yet");
  int alive = 0;  // protocols
  std::function<void(DatagramTransport&)> on_made, on_error, on_pause, on_resume, on_lost;
  std::function<void(DatagramTransport&, absl::string_view)> on_data;

  std::unique_ptr<DatagramProtocol> NewProtocol();
  bool lost() const { return !log.empty() && absl::StartsWith(log.back(), "lost"); }
  int Count(absl::string_view entry) const {
    return static_cast<int>(std::count(log.begin(), log.end(), std::string(entry)));
  }
};

class RecordingDatagrams final : public DatagramProtocol {
 public:
  explicit RecordingDatagrams(DatagramRecording& recording) : recording_(recording) { ++recording_.alive; }
  ~RecordingDatagrams() override { --recording_.alive; }
  void ConnectionMade(DatagramTransport& transport) override { Note("made", recording_.on_made, transport); }
  void DatagramReceived(absl::Span<const char> data, const SocketAddress& from) override {
    recording_.from = from;
    const absl::string_view text(data.data(), data.size());
    recording_.log.push_back(absl::StrCat("data ", text));
    if (recording_.on_data) recording_.on_data(transport(), text);
  }
  void ErrorReceived(const absl::Status& error) override {
    recording_.errors.push_back(error);
    Note(absl::StrCat("error ", ErrnoText(std::max(ErrnoOf(error), 1))), recording_.on_error, transport());
  }
  void PauseWriting() override { Note("pause", recording_.on_pause, transport()); }
  void ResumeWriting() override { Note("resume", recording_.on_resume, transport()); }
  void ConnectionLost(const absl::Status& reason) override {
    recording_.reason = reason;
    Note(absl::StrCat("lost ", absl::StatusCodeToString(reason.code())), recording_.on_lost, transport());
  }

 private:
  void Note(std::string entry, const std::function<void(DatagramTransport&)>& then, DatagramTransport& transport) {
    recording_.log.push_back(std::move(entry));
    if (then) then(transport);
  }
  DatagramRecording& recording_;
};

inline std::unique_ptr<DatagramProtocol> DatagramRecording::NewProtocol() {
  return std::make_unique<RecordingDatagrams>(*this);
}

}  // namespace troupe::internal

#endif  // TROUPE_NET_INTERNAL_RECORDING_DATAGRAMS_H_
