// Stranger: a peer of a server that speaks bytes of our choosing over memory, and reads only when told to.
//
//   Stranger stranger(in_process);
//   stranger.Send(FrameBytes().Preface().Call(1, 0, "/echo.v1.Echo/Echo", request));
//   in_process.RunUntilIdle();
//   EXPECT_THAT(stranger.TakeFrames(), ElementsAre("END 1 ..."));
//
// Threading: the loop's.     Lifetime: within that of the server it talks to.
#ifndef TROUPE_SERVICE_TESTING_STRANGER_H_
#define TROUPE_SERVICE_TESTING_STRANGER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/net/memory_transport.h"
#include "troupe/net/protocol.h"
#include "troupe/net/transport.h"
#include "troupe/service/server.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe::internal {

class Stranger {
 public:
  explicit Stranger(Server& server, const MemoryTransportOptions& options = {}) {
    std::unique_ptr<Protocol> server_end = server.NewConnection();
    if (server_end == nullptr) {
      lost_ = true;
      return;
    }
    auto end = std::make_unique<End>(*this);
    end_ = end.get();
    pair_ = MakeMemoryPair(server.loop(), std::move(end), std::move(server_end), options);
  }
  Stranger(const Stranger&) = delete;
  Stranger& operator=(const Stranger&) = delete;
  ~Stranger() {
    if (pair_.first == nullptr) return;
    end_->Detach();
    pair_.first->Abort();
  }

  void Send(absl::Span<const char> bytes) {
    if (!lost_) pair_.first->Write(bytes);
  }
  void HalfClose() { pair_.first->WriteEof(); }
  void Reset() { pair_.first->Abort(); }
  void StopReading() { pair_.first->PauseReading(); }
  void Read() { pair_.first->ResumeReading(); }

  // What the server said since the last time: lines without the preface. Frames that are not complete are kept.
  std::vector<std::string> TakeFrames() {
    if (!preface_read_ && received_.size() >= 8) {
      received_.erase(0, 8 + size_t{native::Load16(received_.data() + 6)});
      preface_read_ = true;
    }
    size_t whole = 0;
    while (received_.size() - whole >= native::kFrameHeaderBytes) {
      const size_t frame = native::kFrameHeaderBytes + native::ReadFrameHeader(received_.data() + whole).length;
      if (received_.size() - whole < frame) break;
      whole += frame;
    }
    const std::string frames = received_.substr(0, whole);
    received_.erase(0, whole);
    std::vector<std::string> lines = native::Describe(native::FrameBytes().Preface().str() + frames);
    lines.erase(lines.begin());
    return lines;
  }
  const std::string& received() const { return received_; }
  size_t received_bytes() const { return received_bytes_; }
  // What we sent and the server did not take.
  size_t unsent() const { return lost_ ? 0 : pair_.first->write_buffer_size(); }
  bool ended() const { return eof_ || lost_; }
  bool lost() const { return lost_; }

 private:
  class End final : public Protocol {
   public:
    explicit End(Stranger& stranger) : stranger_(&stranger) {}
    // The transport outlives the stranger by an iteration.
    void Detach() { stranger_ = nullptr; }
    void DataReceived(absl::Span<const char> data) override {
      if (stranger_ == nullptr) return;
      stranger_->received_.append(data.data(), data.size());
      stranger_->received_bytes_ += data.size();
    }
    bool EofReceived() override {
      if (stranger_ != nullptr) stranger_->eof_ = true;
      return stranger_ != nullptr;
    }
    void ConnectionLost(const absl::Status&) override {
      if (stranger_ != nullptr) stranger_->lost_ = true;
    }

   private:
    Stranger* stranger_;
  };

  MemoryPair pair_;
  End* end_ = nullptr;  // owned by the first of the pair
  std::string received_;
  size_t received_bytes_ = 0;
  bool preface_read_ = false;
  bool eof_ = false;
  bool lost_ = false;
};

}  // namespace troupe::internal

#endif  // TROUPE_SERVICE_TESTING_STRANGER_H_
