#include "troupe/wire/grpc/testing_scripts.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "troupe/wire/testing_end.h"

namespace troupe::grpc_wire {
namespace {

constexpr uint8_t kPriorityFlag = 0x20;
constexpr uint32_t kWindowMost = 0x7fffffff;
constexpr char kPath[] = "/a.B/C";  // which nobody knows

using Answer = std::vector<std::string>;

const char* ErrorName(uint32_t error) {
  static constexpr const char* kNames[] = {"NO_ERROR",
                                           "PROTOCOL_ERROR",
                                           "INTERNAL_ERROR",
                                           "FLOW_CONTROL_ERROR",
                                           "SETTINGS_TIMEOUT",
                                           "STREAM_CLOSED",
                                           "FRAME_SIZE_ERROR",
                                           "REFUSED_STREAM",
                                           "CANCEL",
                                           "COMPRESSION_ERROR",
                                           "CONNECT_ERROR",
                                           "ENHANCE_YOUR_CALM",
                                           "INADEQUATE_SECURITY",
                                           "HTTP_1_1_REQUIRED"};
  return error < std::size(kNames) ? kNames[error] : "an unknown error";
}

uint32_t NumberAt(const std::string& bytes, size_t at) {
  uint32_t number = 0;
  for (size_t i = at; i < at + 4 && i < bytes.size(); ++i) number = number << 8 | static_cast<uint8_t>(bytes[i]);
  return number;
}

std::string Bytes(size_t count, char filled_with = 0) { return std::string(count, filled_with); }
// Five bytes of a priority.
std::string Priority(uint32_t depends_on, uint8_t weight = 15) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(depends_on >> shift));
  bytes.push_back(static_cast<char>(weight));
  return bytes;
}

// A message of any type whose first field is text, or bytes.
constexpr absl::string_view kMessage("\n\0", 2);

// Blocks of headers, by RFC 7541.
std::string Block(const HeaderFields& more = {}) { return HeaderBlock(RequestFields(kPath, more)); }
// A field "x" whose value is in Huffman's code.
std::string Huffman(absl::string_view code) {
  return std::string("\0\1x", 3) + static_cast<char>(0x80 | code.size()) + std::string(code);
}
H2Bytes Blocks(uint32_t id, absl::string_view block, uint8_t flags = kEndHeaders | kEndStream) {
  return H2Bytes().Frame(kHeadersFrame, flags, id, block);
}
// A request without some of its fields.
H2Bytes Without(const std::string& name) {
  HeaderFields fields;
  for (const auto& field : RequestFields(kPath)) {
    if (field.first != name) fields.push_back(field);
  }
  return H2Bytes().Headers(1, fields, kEndStream);
}
H2Bytes With(const std::string& name, const std::string& value) {
  HeaderFields fields = RequestFields(kPath);
  for (auto& field : fields) {
    if (field.first == name) field.second = value;
  }
  return H2Bytes().Headers(1, fields, kEndStream);
}
// A field more; one of the pseudo-fields stands where those stand.
H2Bytes More(const std::string& name, const std::string& value) {
  HeaderFields fields = RequestFields(kPath);
  fields.insert(name[0] == ':' ? fields.begin() + 4 : fields.end(), {name, value});
  return H2Bytes().Headers(1, fields, kEndStream);
}

// What is a mistake, or none, whichever end says it. `before` is what brings its connection to open call 1.
void AddCommon(std::vector<ByteScript>& scripts, const H2Bytes& before) {
  const Answer protocol = {"GOAWAY PROTOCOL_ERROR"}, size = {"GOAWAY FRAME_SIZE_ERROR"},
               flow = {"GOAWAY FLOW_CONTROL_ERROR"}, none;
  const auto add = [&](const char* name, H2Bytes bytes, Answer answer) {
    scripts.push_back({name, before, std::move(bytes), std::move(answer)});
  };
  add("4.1: a frame of an unknown type", H2Bytes().Frame(0x16, 0, 0, "whatever"), none);
  add("4.1: a frame of an unknown type, on a stream", H2Bytes().Frame(0xff, 0xff, 1, "whatever"), none);
  add("4.1: flags that nobody has defined", H2Bytes().Frame(kPingFrame, 0xfe, 0, Bytes(8)), {"PING ack"});
  add("4.1: the reserved bit of a stream's id", H2Bytes().Frame(kPingFrame, 0, 0x80000000, Bytes(8)), {"PING ack"});
  add("4.2: DATA longer than 2^14", H2Bytes().Data(1, Bytes(16385)), size);
  add("4.2: HEADERS longer than 2^14", H2Bytes().Frame(kHeadersFrame, kEndHeaders, 1, Bytes(16385, 'x')), size);
  add("4.2: SETTINGS longer than 2^14", H2Bytes().Frame(kSettingsFrame, 0, 0, Bytes(16386)), size);
  add("4.2: an unknown frame longer than 2^14", H2Bytes().Frame(0x16, 0, 0, Bytes(16385)), size);
  add("5.1, idle: DATA", H2Bytes().Data(9, "x"), protocol);
  add("5.1, idle: RST_STREAM", H2Bytes().Reset(9, 8), protocol);
  add("5.1, idle: WINDOW_UPDATE", H2Bytes().WindowUpdate(9, 1), protocol);
  add("5.1, idle: CONTINUATION", H2Bytes().Frame(kContinuationFrame, kEndHeaders, 9, Block()), protocol);
  add("5.1, idle: PRIORITY", H2Bytes().Frame(kPriorityFrame, 0, 9, Priority(0)), none);
  add("5.4.1: a PING whose length is wrong ends the connection", H2Bytes().Frame(kPingFrame, 0, 0, Bytes(7)), size);
  add("6.1: DATA of stream 0", H2Bytes().Data(0, "x"), protocol);
  add("6.1: padding as long as the payload",
      H2Bytes().Frame(kDataFrame, kPadded, 1,
                      "\x05"
                      "abcd"),
      protocol);
  add("6.1: padding that begins beyond the frame", H2Bytes().Frame(kDataFrame, kPadded, 1, ""), protocol);
  add("6.2: HEADERS of stream 0", Blocks(0, Block()), protocol);
  add("6.2: HEADERS padded beyond their end", Blocks(1, "\xff" + Block(), kEndHeaders | kEndStream | kPadded),
      protocol);
  add("6.2: HEADERS too short for their priority", Blocks(1, "abc", kEndHeaders | kPriorityFlag), size);
  add("6.3: PRIORITY of stream 0", H2Bytes().Frame(kPriorityFrame, 0, 0, Priority(1)), protocol);
  // The RFC has a stream error; there is nothing to be gained from a peer that counts wrongly.
  add("6.3: PRIORITY of four bytes", H2Bytes().Frame(kPriorityFrame, 0, 1, Bytes(4)), size);
  add("6.4: RST_STREAM of stream 0", H2Bytes().Reset(0, 8), protocol);
  add("6.4: RST_STREAM of three bytes", H2Bytes().Frame(kResetFrame, 0, 1, Bytes(3)), size);
  add("6.5: an acknowledgement with a payload", H2Bytes().Frame(kSettingsFrame, kAckFlag, 0, Bytes(6)), size);
  add("6.5: SETTINGS of a stream", H2Bytes().Frame(kSettingsFrame, 0, 1, ""), protocol);
  add("6.5: SETTINGS of three bytes", H2Bytes().Frame(kSettingsFrame, 0, 0, Bytes(3)), size);
  add("6.5.2: ENABLE_PUSH that is neither 0 nor 1", H2Bytes().Settings({{2, 2}}), protocol);
  add("6.5.2: INITIAL_WINDOW_SIZE above 2^31 - 1", H2Bytes().Settings({{4, 0x80000000}}), flow);
  add("6.5.2: MAX_FRAME_SIZE below 2^14", H2Bytes().Settings({{5, 16383}}), protocol);
  add("6.5.2: MAX_FRAME_SIZE above 2^24 - 1", H2Bytes().Settings({{5, 16777216}}), protocol);
  add("6.5.2: a setting that nobody knows", H2Bytes().Settings({{0xff, 1}}), {"SETTINGS ack"});
  add("6.5.2: HEADER_TABLE_SIZE of nothing", H2Bytes().Settings({{1, 0}}), {"SETTINGS ack"});
  add("6.5.2: HEADER_TABLE_SIZE of 4 GiB", H2Bytes().Settings({{1, 0xffffffff}}), {"SETTINGS ack"});
  add("6.5.2: every setting at once, and each twice",
      H2Bytes().Settings(
          {{1, 0}, {1, 8192}, {3, 0}, {3, 100}, {4, 0}, {4, 65535}, {5, 16384}, {5, 65536}, {6, 1}, {6, 65536}}),
      {"SETTINGS ack"});
  add("6.5.3: SETTINGS are acknowledged, each", H2Bytes().Settings().Settings({{3, 100}}),
      {"SETTINGS ack", "SETTINGS ack"});
  add("6.5.3: an acknowledgement of nothing", H2Bytes().SettingsAck(), protocol);
  add("6.7: PING", H2Bytes().Ping(0x0102030405060708), {"PING ack"});
  add("6.7: an answer to no PING", H2Bytes().Ping(1, kAckFlag), none);
  add("6.7: PING of a stream", H2Bytes().Frame(kPingFrame, 0, 1, Bytes(8)), protocol);
  add("6.7: PING of six bytes", H2Bytes().Frame(kPingFrame, 0, 0, Bytes(6)), size);
  add("6.8: GOAWAY of a stream", H2Bytes().Frame(kGoAwayFrame, 0, 1, Bytes(8)), protocol);
  add("6.8: GOAWAY of seven bytes", H2Bytes().Frame(kGoAwayFrame, 0, 0, Bytes(7)), size);
  add("6.9: WINDOW_UPDATE of the connection by nothing", H2Bytes().WindowUpdate(0, 0), protocol);
  // The RFC has a stream error.
  add("6.9: WINDOW_UPDATE of a stream by nothing", H2Bytes().WindowUpdate(1, 0), protocol);
  add("6.9: WINDOW_UPDATE of three bytes", H2Bytes().Frame(kWindowUpdateFrame, 0, 1, Bytes(3)), size);
  add("6.9: WINDOW_UPDATE with its reserved bit", H2Bytes().WindowUpdate(0, 0x80000001), none);
  add("6.9.1: the connection's window above 2^31 - 1",
      H2Bytes().WindowUpdate(0, kWindowMost).WindowUpdate(0, kWindowMost), flow);
  add("6.9.1: a stream's window above 2^31 - 1", H2Bytes().WindowUpdate(1, kWindowMost).WindowUpdate(1, kWindowMost),
      {"RST_STREAM 1 FLOW_CONTROL_ERROR"});
  // The RFC has an error of the connection; nghttp2 ends the streams, and those alone.
  add("6.9.2: settings that make a stream's window overflow",
      H2Bytes().WindowUpdate(1, kWindowMost - 65535).Settings({{4, 131072}}),
      {"SETTINGS ack", "RST_STREAM 1 FLOW_CONTROL_ERROR"});
  add("6.10: CONTINUATION of stream 0", Blocks(1, "", 0).Frame(kContinuationFrame, kEndHeaders, 0, Block()), protocol);
  add("6.10: CONTINUATION of another stream", Blocks(1, "", 0).Frame(kContinuationFrame, kEndHeaders, 3, Block()),
      protocol);
  add("6.10: CONTINUATION behind DATA", H2Bytes().Data(1, "").Frame(kContinuationFrame, kEndHeaders, 1, Block()),
      protocol);
  add("4.3, 6.10: DATA inside a block of headers", Blocks(1, "", 0).Data(1, ""), protocol);
  add("4.3: PRIORITY inside a block of headers", Blocks(1, "", 0).Frame(kPriorityFrame, 0, 1, Priority(0)), protocol);
  add("4.3: PING inside a block of headers", Blocks(1, "", 0).Ping(1), protocol);
  add("5.5: an unknown frame inside a block of headers", Blocks(1, "", 0).Frame(0x16, 0, 1, ""), protocol);
}

// Blocks that no decoder can read, behind what is right.
void AddBlocks(std::vector<ByteScript>& scripts, const H2Bytes& before, const std::string& good) {
  const Answer compression = {"GOAWAY COMPRESSION_ERROR"};
  const auto add = [&](const char* name, const std::string& bad) {
    scripts.push_back({name, before, Blocks(1, good + bad), compression});
  };
  add("4.3; RFC 7541, 2.3.3: a field of an index that nobody has filled", "\xc6");
  add("4.3; RFC 7541, 2.3.3: a name of an index that nobody has filled", "\x7f\x07\x01v");
  add("4.3; RFC 7541, 4.2: a new size behind a field", "\x20");
  add("4.3; RFC 7541, 5.1: a number that has no end", std::string(12, '\xff'));
  add("4.3; RFC 7541, 5.2: text beyond the block", std::string("\0\1x\x7f", 4));
  add("4.3; RFC 7541, 5.2: padding of more than seven bits", Huffman("\x1f\xff"));
  add("4.3; RFC 7541, 5.2: padding of zeros", Huffman("\x18"));
  add("4.3; RFC 7541, 5.2: the end of text inside text", Huffman("\xff\xff\xff\xff"));
  add("4.3; RFC 7541, 6.1: index 0", "\x80");
  add("4.3: a field that is cut", std::string("\0\1", 2));
  scripts.push_back(
      {"4.3; RFC 7541, 6.3: a size above what we take", before, Blocks(1, "\x3f\xe2\x1f" + good), compression});
}

// "" for SETTINGS and WINDOW_UPDATE of its sender's own.
std::string LineOf(const SentFrame& frame) {
  const bool ack = (frame.flags & kAckFlag) != 0;
  const char* const end = (frame.flags & kEndStream) != 0 ? " end" : "";
  switch (frame.type) {
    case kDataFrame:
      return absl::StrCat("DATA ", frame.id, " ", frame.payload.size(), end);
    case kHeadersFrame:
      return absl::StrCat("HEADERS ", frame.id, end);
    case kResetFrame:
      return absl::StrCat("RST_STREAM ", frame.id, " ", ErrorName(NumberAt(frame.payload, 0)));
    case kSettingsFrame:
      return ack ? "SETTINGS ack" : "";
    case kPingFrame:
      return ack ? "PING ack" : "PING";
    case kGoAwayFrame:
      return absl::StrCat("GOAWAY ", ErrorName(NumberAt(frame.payload, 4)));
    case kWindowUpdateFrame:
      return "";
    default:
      return absl::StrCat("a frame of type ", frame.type);
  }
}

}  // namespace

std::vector<std::string> LinesOf(const std::vector<SentFrame>& frames) {
  std::vector<std::string> lines;
  const SentFrame* last = nullptr;
  std::string data;
  for (const SentFrame& frame : frames) {
    SentFrame whole = frame;
    const bool goes_on =
        last != nullptr && last->type == kDataFrame && frame.type == kDataFrame && last->id == frame.id;
    data = goes_on ? data + frame.payload : frame.payload;
    whole.payload = data;
    std::string line = LineOf(whole);
    if (line.empty()) continue;
    if (goes_on) lines.pop_back();
    lines.push_back(std::move(line));
    last = &frame;
  }
  return lines;
}

std::vector<ByteScript> ServerScripts(const ScriptPaths& paths) {
  const Answer protocol = {"GOAWAY PROTOCOL_ERROR"}, closed = {"GOAWAY STREAM_CLOSED"}, none,
               answered = {"HEADERS 1 end"}, malformed = {"RST_STREAM 1 PROTOCOL_ERROR"};
  const H2Bytes connected = H2Bytes().Preface().Settings().SettingsAck();
  const auto after = [&](const H2Bytes& bytes) { return H2Bytes(connected).Raw(bytes.str()); };
  const H2Bytes open = after(H2Bytes().Request(1, paths.waits));
  const H2Bytes half_closed = after(H2Bytes().Call(1, paths.waits, kMessage));
  const H2Bytes ended = after(H2Bytes().Call(1, kPath, kMessage));
  const H2Bytes four =
      H2Bytes().Request(1, paths.waits).Request(3, paths.waits).Request(5, paths.waits).Request(7, paths.waits);
  const H2Bytes reset = after(H2Bytes().Request(1, paths.waits).Reset(1, 8));
  const std::string message = Framed(kMessage);

  const std::string large = Framed(wire_testing::Encoded(std::string(16'000, 'x')));

  std::vector<ByteScript> scripts = {
      // ---- 3.4: the preface
      {"3.4: a preface", {}, H2Bytes().Preface().Settings(), {"SETTINGS ack"}},
      {"3.4: a preface whose settings say something", {}, H2Bytes().Preface().Settings({{4, 1}}), {"SETTINGS ack"}},
      {"3.4: requests right behind the preface",
       {},
       H2Bytes().Preface().Settings().Call(1, kPath, kMessage),
       {"SETTINGS ack", "HEADERS 1 end"}},
      {"3.4: another preface", {}, H2Bytes().Raw("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n").Settings(), protocol},
      {"3.4: HTTP/1.1", {}, H2Bytes().Raw("POST / HTTP/1.1\r\nhost: kv.test\r\n\r\n"), protocol},
      {"3.4: a preface without settings", {}, H2Bytes().Preface().Ping(1), protocol},
      {"3.4: a request before settings", {}, H2Bytes().Preface().Call(1, kPath, kMessage), protocol},
      {"3.4: an acknowledgement for settings", {}, H2Bytes().Preface().SettingsAck(), protocol},
      {"3.4: another preface on the way", connected, H2Bytes().Preface(), {"GOAWAY FRAME_SIZE_ERROR"}},

      // ---- 4.2: sizes
      {"4.2: DATA of 2^14", connected, H2Bytes().Request(1, kPath).Data(1, Framed(Bytes(16384 - 5)), kEndStream),
       answered},

      // ---- 4.3 and RFC 7541: blocks
      {"4.3: HEADERS of another stream inside a block", connected, Blocks(1, Block(), 0).Request(3, kPath), protocol},
      {"4.3; RFC 7541, 6.1: fields by their index", connected,
       Blocks(1, "\x83\x86" +
                     HeaderBlock({{":path", kPath}, {":authority", "kv.test"}, {"content-type", "application/grpc"}})),
       answered},
      {"4.3; RFC 7541, 6.2.1: fields that are remembered",
       connected,
       Blocks(1, Block() + "\x40\x01x\x01v").Frame(kHeadersFrame, kEndHeaders | kEndStream, 3, Block() + "\xbe"),
       {"HEADERS 1 end", "HEADERS 3 end"}},
      {"4.3; RFC 7541, 6.2.1: a remembered name", connected, Blocks(1, Block() + "\x7a\x01v"), answered},
      {"4.3; RFC 7541, 6.2.2: a name by its index", connected, Blocks(1, Block() + std::string("\x0f\x2b\x01v", 4)),
       answered},
      {"4.3; RFC 7541, 6.2.3: fields that are never remembered", connected,
       Blocks(1, Block() + "\x10\x01x\x01v" + "\x1f\x2b\x01v"), answered},
      {"4.3; RFC 7541, 6.3: sizes before the first field", connected, Blocks(1, "\x20\x3f\xe1\x1f" + Block()),
       answered},
      {"4.3; RFC 7541, 5.2: text by Huffman", connected, Blocks(1, Block() + Huffman("\x1f")), answered},

      // ---- 5.1: states
      {"5.1, half-closed: PRIORITY", half_closed, H2Bytes().Frame(kPriorityFrame, 0, 1, Priority(0)), none},
      {"5.1, half-closed: WINDOW_UPDATE", half_closed, H2Bytes().WindowUpdate(1, 100), none},
      {"5.1, half-closed: RST_STREAM", half_closed, H2Bytes().Reset(1, 8), none},
      // The RFC has stream errors for these two; an error of the connection is allowed (5.4.1).
      {"5.1, half-closed: DATA", half_closed, H2Bytes().Data(1, message), closed},
      {"5.1, half-closed: HEADERS", half_closed, H2Bytes().Headers(1, {{"x", "v"}}, kEndStream), closed},
      {"5.1, half-closed: CONTINUATION", half_closed, H2Bytes().Frame(kContinuationFrame, kEndHeaders, 1, Block()),
       protocol},
      // What comes of a closed stream MAY be an error. It is ignored: it may have crossed our own reset, and nghttp2
      // remembers no streams that are closed.
      {"5.1, closed by RST_STREAM: DATA", reset, H2Bytes().Data(1, message), none},
      {"5.1, closed by RST_STREAM: HEADERS", reset, H2Bytes().Request(1, kPath), none},
      {"5.1, closed by RST_STREAM: RST_STREAM", reset, H2Bytes().Reset(1, 8), none},
      {"5.1, closed by RST_STREAM: WINDOW_UPDATE", reset, H2Bytes().WindowUpdate(1, 1), none},
      {"5.1, closed by RST_STREAM: CONTINUATION", reset, H2Bytes().Frame(kContinuationFrame, kEndHeaders, 1, Block()),
       protocol},
      {"5.1, closed: DATA", ended, H2Bytes().Data(1, message), none},
      {"5.1, closed: HEADERS", ended, H2Bytes().Request(1, kPath), none},
      {"5.1, closed: RST_STREAM", ended, H2Bytes().Reset(1, 8), none},
      {"5.1, closed: WINDOW_UPDATE", ended, H2Bytes().WindowUpdate(1, 1), none},
      {"5.1, closed: PRIORITY", ended, H2Bytes().Frame(kPriorityFrame, 0, 1, Priority(0)), none},
      {"5.1, closed: CONTINUATION", ended, H2Bytes().Frame(kContinuationFrame, kEndHeaders, 1, Block()), protocol},

      // ---- 5.1.1: ids
      {"5.1.1: a client's stream of an even id", connected, H2Bytes().Call(2, kPath, kMessage), protocol},
      // MUST be an error of the connection. To nghttp2 it is a stream that is closed: see there.
      {"5.1.1: an id below the last", after(H2Bytes().Call(5, kPath, kMessage)), H2Bytes().Call(3, kPath, kMessage),
       none},
      {"5.1.1: ids that are left out", connected, H2Bytes().Call(99, kPath, kMessage), {"HEADERS 99 end"}},

      // ---- 5.1.2: how many
      // The RFC has a stream error for who knows how many we take, too.
      {"5.1.2: more streams than we take, of who does not know",
       H2Bytes().Preface().Settings().Raw(four.str()),
       H2Bytes().Request(9, kPath),
       {"RST_STREAM 9 REFUSED_STREAM"}},
      {"5.1.2: more streams than we take, of who does", after(four), H2Bytes().Request(9, kPath), protocol},

      // ---- 5.3: priorities, which RFC 9113 has given up, and RFC 7540 has with stream errors
      {"5.3: HEADERS with a priority", connected,
       Blocks(1, Priority(0) + Block(), kEndHeaders | kEndStream | kPriorityFlag), answered},
      {"5.3: HEADERS that depend on themselves", connected,
       Blocks(1, Priority(1) + Block(), kEndHeaders | kEndStream | kPriorityFlag), protocol},
      {"5.3: a PRIORITY that depends on itself", open, H2Bytes().Frame(kPriorityFrame, 0, 1, Priority(1)), protocol},
      {"5.3: priorities of all kinds",
       open,
       H2Bytes()
           .Frame(kPriorityFrame, 0, 1, Priority(0, 0))
           .Frame(kPriorityFrame, 0, 1, Priority(0, 255))
           .Frame(kPriorityFrame, 0, 1, Priority(0x80000000))
           .Frame(kPriorityFrame, 0, 9, Priority(7))
           .Call(3, kPath, kMessage),
       {"HEADERS 3 end"}},

      // ---- 6.1: DATA
      {"6.1: DATA in pieces", connected,
       H2Bytes().Request(1, kPath).Data(1, message.substr(0, 2)).Data(1, "").Data(1, message.substr(2), kEndStream),
       answered},
      {"6.1: DATA with padding", connected,
       H2Bytes()
           .Request(1, kPath)
           .PaddedData(1, message.substr(0, 3), 255)
           .PaddedData(1, message.substr(3), 0, kEndStream),
       answered},
      {"6.1: nothing but padding", connected,
       H2Bytes().Request(1, kPath).Data(1, message).PaddedData(1, "", 7, kEndStream), answered},

      // ---- 6.2: HEADERS
      {"6.2: HEADERS with padding", connected, Blocks(1, "\x03" + Block() + "ppp", kEndHeaders | kEndStream | kPadded),
       answered},
      {"6.2: HEADERS with padding and a priority", connected,
       Blocks(1, "\x03" + Priority(0) + Block() + "ppp", kEndHeaders | kEndStream | kPadded | kPriorityFlag), answered},
      {"6.2: a request without DATA", connected, H2Bytes().Request(1, kPath, {}, kEndStream), answered},

      // ---- 6.4: RST_STREAM
      {"6.4: RST_STREAM", open, H2Bytes().Reset(1, 8), none},
      {"7: RST_STREAM with an error that nobody knows", open, H2Bytes().Reset(1, 0xff), none},

      // ---- 6.6: PUSH_PROMISE
      {"6.6: a client that promises", open,
       H2Bytes().Frame(kPushPromiseFrame, kEndHeaders, 1, std::string("\0\0\0\2", 4) + Block()), protocol},

      // ---- 6.8: GOAWAY
      // With no call open, nghttp2 reads nothing more of who goes away.
      {"6.8: a client that goes away is answered still",
       open,
       H2Bytes().GoAway(0, 0).Call(3, kPath, kMessage),
       {"HEADERS 3 end"}},
      {"6.8: GOAWAY that speaks of a stream that is none of ours", connected, H2Bytes().GoAway(1, 0), protocol},
      {"7: GOAWAY with an error that nobody knows", open, H2Bytes().GoAway(0, 0xff), none},
      {"6.8: GOAWAY with words, and again", open, H2Bytes().GoAway(0, 0, "bye").GoAway(0, 2, "bye"), none},

      // ---- 6.9: windows
      {"6.9.1: DATA beyond the stream's window",
       open,
       H2Bytes().Data(1, large).Data(1, large).Data(1, large).Data(1, large).Data(1, large),
       {"RST_STREAM 1 FLOW_CONTROL_ERROR"}},
      {"6.9.1: a reply as the stream's window lets it",
       after(H2Bytes().Settings({{4, 1}})),
       H2Bytes().Call(1, paths.replies, kMessage),
       {"HEADERS 1", "DATA 1 1"}},
      {"6.9.1: and the rest with more window",
       after(H2Bytes().Settings({{4, 1}}).Call(1, paths.replies, kMessage)),
       H2Bytes().WindowUpdate(1, 2).WindowUpdate(1, 100),
       {"DATA 1 7", "HEADERS 1 end"}},
      {"6.9.2: a window that settings raise",
       after(H2Bytes().Settings({{4, 0}}).Call(1, paths.replies, kMessage)),
       H2Bytes().Settings({{4, 1}}),
       {"SETTINGS ack", "DATA 1 1"}},
      {"6.9.2: a window that settings make negative",
       after(H2Bytes().Settings({{4, 3}}).Call(1, paths.replies, kMessage)),
       H2Bytes().Settings({{4, 1}}).WindowUpdate(1, 2).WindowUpdate(1, 1),
       {"SETTINGS ack", "DATA 1 1"}},

      // ---- 6.10: CONTINUATION
      {"6.10: a block in pieces", connected,
       Blocks(1, Block().substr(0, 1), kEndStream)
           .Frame(kContinuationFrame, 0, 1, Block().substr(1, 30))
           .Frame(kContinuationFrame, 0, 1, "")
           .Frame(kContinuationFrame, kEndHeaders, 1, Block().substr(31)),
       answered},
      {"6.10: CONTINUATION behind the end of a block", connected,
       H2Bytes().Request(1, kPath).Frame(kContinuationFrame, kEndHeaders, 1, ""), protocol},
      {"6.10: CONTINUATION behind the last CONTINUATION", connected,
       Blocks(1, "", 0)
           .Frame(kContinuationFrame, kEndHeaders, 1, Block())
           .Frame(kContinuationFrame, kEndHeaders, 1, ""),
       protocol},

      // ---- 8.1: messages of HTTP
      {"8.1: trailers of a request", connected,
       H2Bytes().Request(1, kPath).Data(1, message).Headers(1, {{"x", "v"}}, kEndStream), answered},
      {"8.1: a second HEADERS that does not end", open, H2Bytes().Headers(1, {{"x", "v"}}), malformed},
      {"8.1.1: DATA shorter than content-length", connected,
       H2Bytes().Request(1, paths.waits, {{"content-length", "8"}}).Data(1, message, kEndStream), malformed},
      {"8.1.1: DATA longer than content-length", connected,
       H2Bytes().Request(1, paths.waits, {{"content-length", "1"}}).Data(1, message, kEndStream), malformed},
      {"8.1.1: DATA of several frames longer than content-length", connected,
       H2Bytes()
           .Request(1, paths.waits, {{"content-length", "5"}})
           .Data(1, message.substr(0, 3))
           .Data(1, message.substr(3), kEndStream),
       malformed},
      {"8.1.1: DATA as long as content-length", connected,
       H2Bytes().Request(1, kPath, {{"content-length", "7"}}).Data(1, message, kEndStream), answered},
      {"8.1.1: two content-lengths", connected,
       H2Bytes().Request(1, kPath, {{"content-length", "0"}, {"content-length", "0"}}, kEndStream), malformed},

      // ---- 8.2: fields
      {"8.2.1: a name in capitals", connected, More("X-Test", "v"), malformed},
      {"8.2.1: a name with a space", connected, More("x test", "v"), malformed},
      {"8.2.1: a name with a byte below it", connected, More("x\x1f", "v"), malformed},
      {"8.2.1: a name beyond ASCII", connected, More("x\x80", "v"), malformed},
      {"8.2.1: a colon inside a name", connected, More("x:y", "v"), malformed},
      {"8.2.1: no name", connected, H2Bytes().Request(1, kPath, {{"", "v"}}, kEndStream), malformed},
      {"8.2.1: a value with a zero", connected, More("x", std::string("a\0b", 3)), malformed},
      {"8.2.1: a value with an end of line", connected, More("x", "a\nb"), malformed},
      {"8.2.1: a value with a carriage return", connected, More("x", "a\rb"), malformed},
      {"8.2.2: connection", connected, More("connection", "close"), malformed},
      {"8.2.2: keep-alive", connected, More("keep-alive", "1"), malformed},
      {"8.2.2: proxy-connection", connected, More("proxy-connection", "close"), malformed},
      {"8.2.2: transfer-encoding", connected, More("transfer-encoding", "chunked"), malformed},
      {"8.2.2: upgrade", connected, More("upgrade", "h2c"), malformed},
      {"8.2.2: te that is not trailers", connected, With("te", "trailers, deflate"), malformed},

      // ---- 8.3: pseudo-fields
      {"8.3: one that nobody knows", connected, More(":test", "v"), malformed},
      {"8.3: one of responses", connected, More(":status", "200"), malformed},
      {"8.3: one in trailers", connected,
       H2Bytes().Request(1, paths.waits).Data(1, message).Headers(1, {{":method", "POST"}}, kEndStream), malformed},
      {"8.3: one behind other fields", connected,
       H2Bytes().Headers(
           1, {{":method", "POST"}, {":scheme", "http"}, {":authority", "kv.test"}, {"x", "v"}, {":path", kPath}},
           kEndStream),
       malformed},
      {"8.3.1: no :method", connected, Without(":method"), malformed},
      {"8.3.1: no :scheme", connected, Without(":scheme"), malformed},
      {"8.3.1: no :path", connected, Without(":path"), malformed},
      {"8.3.1: two of :method", connected, More(":method", "POST"), malformed},
      {"8.3.1: two of :scheme", connected, More(":scheme", "http"), malformed},
      {"8.3.1: two of :path", connected, More(":path", kPath), malformed},
      {"8.3.1: two of :authority", connected, More(":authority", "kv.test"), malformed},
      {"8.3.1: an empty :path", connected, With(":path", ""), malformed},
      {"8.3.1: a :path that is none", connected, With(":path", "a.B/C"), malformed},
      // May be left out by the RFC; nghttp2 wants to know the host by either.
      {"8.3.1: neither :authority nor host", connected, Without(":authority"), malformed},
      {"8.3.1: host instead of :authority", connected,
       H2Bytes().Headers(1,
                         {{":method", "POST"},
                          {":scheme", "http"},
                          {":path", kPath},
                          {"host", "kv.test"},
                          {"content-type", "application/grpc"}},
                         kEndStream),
       answered},

      // ---- 8.5: CONNECT, and the other methods of HTTP
      {"8.5: CONNECT",
       connected,
       H2Bytes().Headers(1, {{":method", "CONNECT"}, {":authority", "kv.test:80"}}, kEndStream),
       {"HEADERS 1", "DATA 1 39 end"}},
      {"8.5: CONNECT with a path", connected, With(":method", "CONNECT"), malformed},
      {"8.1: HEAD",
       connected,
       H2Bytes().Headers(1, {{":method", "HEAD"}, {":scheme", "http"}, {":path", "/"}, {":authority", "kv.test"}},
                         kEndStream),
       {"HEADERS 1 end"}},
      {"8.1: GET",
       connected,
       H2Bytes().Headers(1, {{":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "kv.test"}},
                         kEndStream),
       {"HEADERS 1", "DATA 1 44 end"}},
      {"8.1: POST of something else",
       connected,
       H2Bytes().Headers(1, {{":method", "POST"}, {":scheme", "http"}, {":path", "/x"}, {":authority", "kv.test"}},
                         kEndStream),
       {"HEADERS 1", "DATA 1 39 end"}},
  };
  AddBlocks(scripts, connected, Block());
  AddCommon(scripts, open);
  return scripts;
}

std::vector<ByteScript> ClientScripts() {
  const Answer protocol = {"GOAWAY PROTOCOL_ERROR"}, none, malformed = {"RST_STREAM 1 PROTOCOL_ERROR"};
  const H2Bytes connected = H2Bytes().Settings().SettingsAck();
  const HeaderFields ok = {{":status", "200"}, {"content-type", "application/grpc"}};
  const HeaderFields end = {{"grpc-status", "0"}};
  const auto response = [&](const HeaderFields& more) {
    HeaderFields fields = ok;
    fields.insert(fields.end(), more.begin(), more.end());
    return fields;
  };
  const H2Bytes begun = H2Bytes(connected).Headers(1, ok);
  const H2Bytes ended = H2Bytes(begun).Headers(1, end, kEndStream);
  const std::string message = Framed("m");
  const char* const reset = "reset 1 INTERNAL";

  std::vector<ByteScript> scripts = {
      {"3.4: a server's settings", {}, H2Bytes().Settings(), {"SETTINGS ack"}},
      {"3.4: a server without settings", {}, H2Bytes().Ping(1), protocol, "reset 1"},
      {"3.4: an acknowledgement for settings", {}, H2Bytes().SettingsAck(), protocol, "reset 1"},
      {"3.4: a server of HTTP/1.1", {}, H2Bytes().Raw("HTTP/1.1 400 Bad Request\r\n\r\n"), protocol, "reset 1"},

      {"8.1: an answer", connected, H2Bytes().Headers(1, ok).Data(1, message).Headers(1, end, kEndStream), none,
       "end 1 OK"},
      {"8.1: an answer of trailers alone", connected, H2Bytes().Headers(1, response(end), kEndStream), none,
       "end 1 OK"},
      {"8.1: interim answers", connected,
       H2Bytes()
           .Headers(1, {{":status", "100"}})
           .Headers(1, {{":status", "103"}, {"x", "v"}})
           .Headers(1, response(end), kEndStream),
       none, "end 1 OK"},
      {"8.1: an interim answer that ends", connected, H2Bytes().Headers(1, {{":status", "100"}}, kEndStream), malformed,
       reset},
      {"8.1: HEADERS that do not end, in the middle", begun, H2Bytes().Headers(1, {{"x", "v"}}), malformed, reset},
      // The RFC has a stream error; nghttp2 ends the connection.
      {"8.1: DATA before HEADERS", connected, H2Bytes().Data(1, message), protocol, "reset 1"},
      {"8.1: the answer to a request that has not ended",
       connected,
       H2Bytes().Headers(3, response(end), kEndStream),
       {"RST_STREAM 3 CANCEL"}},
      {"8.1.1: DATA longer than content-length", connected,
       H2Bytes().Headers(1, response({{"content-length", "3"}})).Data(1, message), malformed, reset},
      {"8.1.1: DATA shorter than content-length", connected,
       H2Bytes().Headers(1, response({{"content-length", "9"}})).Data(1, message).Headers(1, end, kEndStream),
       malformed, reset},
      {"8.2.1: a name in capitals", connected, H2Bytes().Headers(1, response({{"X", "v"}})), malformed, reset},
      {"8.2.1: a value with an end of line", connected, H2Bytes().Headers(1, response({{"x", "a\nb"}})), malformed,
       reset},
      {"8.2.2: connection", connected, H2Bytes().Headers(1, response({{"connection", "close"}})), malformed, reset},
      {"8.2.2: transfer-encoding", connected, H2Bytes().Headers(1, response({{"transfer-encoding", "chunked"}})),
       malformed, reset},
      {"8.3: a pseudo-field of requests", connected,
       H2Bytes().Headers(1, {{":status", "200"}, {":path", "/"}, {"content-type", "application/grpc"}}), malformed,
       reset},
      {"8.3: a pseudo-field in trailers", begun,
       H2Bytes().Headers(1, {{":status", "200"}, {"grpc-status", "0"}}, kEndStream), malformed, reset},
      {"8.3: a pseudo-field behind others", connected,
       H2Bytes().Headers(1, {{"content-type", "application/grpc"}, {":status", "200"}}), malformed, reset},
      {"8.3.2: no :status", connected, H2Bytes().Headers(1, {{"content-type", "application/grpc"}}), malformed, reset},
      {"8.3.2: two of :status", connected, H2Bytes().Headers(1, {{":status", "200"}, {":status", "200"}}), malformed,
       reset},
      {"8.3.2: a :status that is none", connected, H2Bytes().Headers(1, {{":status", "OK"}}), malformed, reset},
      {"8.6: 101 is none of HTTP/2's", connected, H2Bytes().Headers(1, {{":status", "101"}}), malformed, reset},

      {"5.1, idle: HEADERS of a call that nobody asked", connected, H2Bytes().Headers(9, ok), protocol, "reset 1"},
      {"5.1.1: a server's stream that it did not promise", connected, H2Bytes().Headers(2, ok), protocol, "reset 1"},
      // Ignored, as for a server: they may have crossed our reset.
      {"5.1, closed: DATA", ended, H2Bytes().Data(1, message), none, "end 1 OK"},
      {"5.1, closed: HEADERS", ended, H2Bytes().Headers(1, end, kEndStream), none, "end 1 OK"},
      {"5.1, closed: RST_STREAM", ended, H2Bytes().Reset(1, 0), none, "end 1 OK"},
      {"5.1, closed: WINDOW_UPDATE", ended, H2Bytes().WindowUpdate(1, 1), none, "end 1 OK"},

      {"6.1: DATA with padding", begun, H2Bytes().PaddedData(1, message, 255).Headers(1, end, kEndStream), none,
       "end 1 OK"},
      {"6.2: HEADERS with padding and a priority", connected,
       Blocks(1, "\x03" + Priority(0) + HeaderBlock(response(end)) + "ppp",
              kEndHeaders | kEndStream | kPadded | kPriorityFlag),
       none, "end 1 OK"},
      {"6.4: RST_STREAM", begun, H2Bytes().Reset(1, 8), none, "reset 1 CANCELLED"},
      {"7: RST_STREAM with an error that nobody knows", begun, H2Bytes().Reset(1, 0xff), none, reset},
      {"8.7: REFUSED_STREAM says that nothing was done", connected, H2Bytes().Reset(1, 7), none, "reset 1 UNAVAILABLE"},
      {"6.5.2: a server that would be pushed to", connected, H2Bytes().Settings({{2, 1}}), protocol, "reset 1"},
      {"6.6: a promise that was forbidden", begun,
       H2Bytes().Frame(kPushPromiseFrame, kEndHeaders, 1, std::string("\0\0\0\2", 4) + Block()), protocol, "reset 1"},
      {"6.8: what is above the last call was not begun", connected, H2Bytes().GoAway(0, 0), none,
       "reset 1 UNAVAILABLE"},
      {"6.8: what is not goes on", connected, H2Bytes().GoAway(1, 0).Headers(1, response(end), kEndStream), none,
       "end 1 OK"},
      {"7: GOAWAY with an error that nobody knows", connected, H2Bytes().GoAway(3, 0xff), none},
      {"6.8: a last call that grows", connected, H2Bytes().GoAway(1, 0).GoAway(3, 0), protocol, "reset 1"},
      {"6.10: a block in pieces", connected,
       Blocks(1, HeaderBlock(response(end)).substr(0, 9), kEndStream)
           .Frame(kContinuationFrame, 0, 1, "")
           .Frame(kContinuationFrame, kEndHeaders, 1, HeaderBlock(response(end)).substr(9)),
       none, "end 1 OK"},
      {"6.10: CONTINUATION behind the end of a block", begun, H2Bytes().Frame(kContinuationFrame, kEndHeaders, 1, ""),
       protocol, "reset 1"},
      {"6.9.1: DATA beyond the stream's window",
       begun,
       H2Bytes()
           .Data(1, Framed(Bytes(16000)))
           .Data(1, Framed(Bytes(16000)))
           .Data(1, Framed(Bytes(16000)))
           .Data(1, Framed(Bytes(16000)))
           .Data(1, Framed(Bytes(16000))),
       {"RST_STREAM 1 FLOW_CONTROL_ERROR"},
       reset},
  };
  const size_t own = scripts.size();
  AddBlocks(scripts, connected, HeaderBlock(ok));
  AddCommon(scripts, begun);
  for (size_t i = own; i < scripts.size(); ++i) {
    if (scripts[i].ends_connection()) scripts[i].end = "reset 1";
    const std::string last = scripts[i].answer.empty() ? "" : scripts[i].answer.back();
    if (last.compare(0, 12, "RST_STREAM 1") == 0) scripts[i].end = reset;
  }
  return scripts;
}

}  // namespace troupe::grpc_wire
