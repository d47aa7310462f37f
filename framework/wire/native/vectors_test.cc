// Runs vectors.json against the codec: what it reads, whole and one byte at a time, and what it says.
#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "framework/wire/native/vectors.pb.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "google/protobuf/wrappers.pb.h"
#include "gtest/gtest.h"
#include "troupe/rpc/metadata.h"
#include "troupe/wire/native/codec.h"
#include "troupe/wire/native/testing_peer.h"

namespace troupe::native {
namespace {

using google::protobuf::BytesValue;
using ::testing::HasSubstr;
using wire::testing::Action;
using wire::testing::Vector;
using wire::testing::Vectors;

Vectors Load() {
  std::ifstream in("framework/wire/native/vectors.json");
  EXPECT_TRUE(in.is_open());
  const std::string text(std::istreambuf_iterator<char>(in), {});
  Vectors vectors;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, &vectors);
  EXPECT_TRUE(parsed.ok()) << parsed.ToString();
  return vectors;
}

template <class Strings>
std::string Unhex(const Strings& hex) {
  std::string all;
  for (const std::string& part : hex) absl::StrAppend(&all, absl::StrReplaceAll(part, {{" ", ""}}));
  EXPECT_EQ(all.size() % 2, 0u);
  EXPECT_EQ(all.find_first_not_of("0123456789abcdef"), std::string::npos) << all;
  return absl::HexStringToBytes(all);
}

template <class Strings>
Lines ToLines(const Strings& strings) {
  return Lines(strings.begin(), strings.end());
}

void Play(const Vector& vector, size_t piece) {
  SCOPED_TRACE(absl::StrCat(vector.name(), ", ", piece, " bytes at a time"));
  ASSERT_NE(vector.reader(), Vector::END_UNSPECIFIED);
  const std::string received = Unhex(vector.received());
  EXPECT_EQ(Describe(received), ToLines(vector.frames()));

  CodecEnd reader(vector.reader() == Vector::CONNECTING ? Client() : Server());
  reader.on_call = [&reader](IncomingCall& call) {
    if (!call.complete) return;
    google::protobuf::BytesValue echo;
    ASSERT_TRUE(echo.ParseFromArray(call.message.data(), static_cast<int>(call.message.size())));
    reader.codec().SendReply(call.id, &echo, absl::OkStatus(), nullptr);
  };
  for (const std::string& path : vector.opened()) reader.Start(path);
  if (vector.after_preface()) {
    ASSERT_EQ(reader.Receive(FrameBytes().Preface()), absl::OkStatus());
  }
  reader.TakeOutput();
  absl::Status status;
  for (size_t at = 0; at < received.size() && status.ok(); at += piece) {
    status = reader.Receive(absl::MakeConstSpan(received.data() + at, std::min(piece, received.size() - at)));
  }
  EXPECT_EQ(reader.TakeLog(), ToLines(vector.events()));
  EXPECT_EQ(absl::BytesToHexString(reader.TakeOutput()), absl::BytesToHexString(Unhex(vector.sent())));
  if (vector.error().empty()) {
    EXPECT_EQ(status, absl::OkStatus());
  } else {
    EXPECT_THAT(std::string(status.message()), HasSubstr(vector.error()));
  }
}

absl::Status StatusOf(const Action::End& end) {
  return absl::Status(static_cast<absl::StatusCode>(end.code()), end.text());
}

BytesValue MessageOf(const std::string& hex) {
  BytesValue message;
  EXPECT_TRUE(message.ParseFromString(absl::HexStringToBytes(hex)));
  return message;
}

template <class Entries>
Metadata MetadataOf(const Entries& entries) {
  Metadata metadata;
  for (const Action::Entry& entry : entries) metadata.Add(entry.key(), entry.value());
  return metadata;
}

void Do(const Action& action, CodecEnd& end) {
  NativeCodec& codec = end.codec();
  switch (action.action_case()) {
    case Action::kStart: {
      const Action::Start& start = action.start();
      const BytesValue message = MessageOf(start.message());
      const Metadata metadata = MetadataOf(start.metadata());
      end.Start(start.path(), start.has_message() ? &message : nullptr, metadata.empty() ? nullptr : &metadata,
                start.has_timeout_nanos() ? absl::Nanoseconds(start.timeout_nanos()) : absl::InfiniteDuration());
      break;
    }
    case Action::kMessage:
      EXPECT_EQ(codec.SendMessage(action.message().call(), MessageOf(action.message().message())), absl::OkStatus());
      break;
    case Action::kHalfClose:
      codec.SendHalfClose(action.half_close().call());
      break;
    case Action::kInitialMetadata:
      codec.SendInitialMetadata(action.initial_metadata().call(), MetadataOf(action.initial_metadata().metadata()));
      break;
    case Action::kReply: {
      const BytesValue message = MessageOf(action.reply().message());
      codec.SendReply(action.reply().call(), action.reply().has_message() ? &message : nullptr,
                      StatusOf(action.reply()), nullptr);
      break;
    }
    case Action::kReset:
      codec.Reset(action.reset().call(), StatusOf(action.reset()));
      break;
    case Action::kPing:
      codec.SendPing(action.ping().opaque());
      break;
    case Action::kGoAway:
      codec.SendGoAway(StatusOf(action.go_away()));
      break;
    case Action::ACTION_NOT_SET:
      ADD_FAILURE() << "an action that does nothing";
  }
}

// What the codec is made to say is what stands there, and another one understands it.
void Say(const Vector& vector) {
  SCOPED_TRACE(vector.name());
  const bool client = vector.writer() == Vector::CONNECTING;
  CodecEnd writer(client ? Client() : Server());
  if (vector.after_preface()) {
    ASSERT_EQ(writer.Receive(FrameBytes().Preface()), absl::OkStatus());
  }
  const std::string received = Unhex(vector.received());
  ASSERT_EQ(writer.Receive(received), absl::OkStatus());
  writer.TakeOutput();
  for (const Action& action : vector.says()) Do(action, writer);
  const std::string said = writer.TakeOutput();
  EXPECT_EQ(absl::BytesToHexString(said), absl::BytesToHexString(Unhex(vector.sent())));

  CodecEnd listener(client ? Server() : Client());
  ASSERT_EQ(listener.Receive(FrameBytes().Preface()), absl::OkStatus());
  if (!received.empty()) listener.Start("/a.B/C");
  listener.TakeOutput();
  EXPECT_EQ(listener.Receive(said), absl::OkStatus());
  EXPECT_FALSE(listener.TakeLog().empty() && listener.TakeOutput().empty());
}

TEST(Vectors, AreWhatTheCodecSays) {
  const Vectors vectors = Load();
  int count = 0;
  for (const Vector& vector : vectors.vector()) {
    if (vector.writer() == Vector::END_UNSPECIFIED) continue;
    Say(vector);
    ++count;
  }
  EXPECT_GT(count, 10);
}

TEST(Vectors, AreWhatTheCodecReadsAndSends) {
  const Vectors vectors = Load();
  EXPECT_GT(vectors.vector_size(), 20);
  std::set<std::string> names;
  for (const Vector& vector : vectors.vector()) {
    EXPECT_TRUE(names.insert(vector.name()).second) << vector.name();
    if (vector.writer() != Vector::END_UNSPECIFIED) continue;
    Play(vector, SIZE_MAX / 2);
    Play(vector, 1);
  }
}

TEST(Vectors, HoldEveryTypeOfFrame) {
  const Vectors vectors = Load();
  std::set<int> types;
  for (const Vector& vector : vectors.vector()) {
    const std::string bytes = Unhex(vector.received());
    absl::string_view rest = bytes;
    if (!vector.after_preface()) rest.remove_prefix(std::min(rest.size(), 8 + size_t{Load16(rest.data() + 6)}));
    while (rest.size() >= kFrameHeaderBytes) {
      const FrameHeader header = ReadFrameHeader(rest.data());
      types.insert(static_cast<int>(header.type));
      rest.remove_prefix(std::min<size_t>(rest.size(), kFrameHeaderBytes + header.length));
    }
  }
  for (int type = 1; type <= 8; ++type) EXPECT_EQ(types.count(type), 1u) << type;
}

}  // namespace
}  // namespace troupe::native
