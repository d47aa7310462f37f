#include "troupe/wire/grpc/testing_peer.h"

#include <nghttp2/nghttp2.h>
#include <sys/types.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "glog/logging.h"

namespace troupe::grpc_wire {
namespace {

void AppendNumber(std::string& to, uint64_t number, int bytes) {
  for (int i = bytes - 1; i >= 0; --i) to.push_back(static_cast<char>(number >> (8 * i)));
}

// RFC 7541, section 5.2: a length in seven bits and more, then the octets as they are.
void AppendText(std::string& to, absl::string_view text) {
  size_t length = text.size();
  if (length < 127) {
    to.push_back(static_cast<char>(length));
  } else {
    to.push_back(127);
    for (length -= 127; length >= 128; length >>= 7) to.push_back(static_cast<char>(128 | (length & 127)));
    to.push_back(static_cast<char>(length));
  }
  to.append(text.data(), text.size());
}

}  // namespace

std::string HeaderBlock(const HeaderFields& fields) {
  std::string block;
  for (const auto& [name, value] : fields) {
    block.push_back(0);
    AppendText(block, name);
    AppendText(block, value);
  }
  return block;
}

HeaderFields FieldsOf(absl::string_view block) {
  nghttp2_hd_inflater* inflater = nullptr;
  CHECK_EQ(nghttp2_hd_inflate_new(&inflater), 0);
  HeaderFields fields;
  int flags = 0;
  while ((flags & NGHTTP2_HD_INFLATE_FINAL) == 0) {
    nghttp2_nv field;
    flags = 0;
    const ssize_t taken = nghttp2_hd_inflate_hd2(
        inflater, &field, &flags, reinterpret_cast<const uint8_t*>(block.data()), block.size(), /*in_final=*/1);
    CHECK_GE(taken, 0) << "malformed";
    block.remove_prefix(static_cast<size_t>(taken));
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) == 0) continue;
    fields.emplace_back(std::string(reinterpret_cast<const char*>(field.name), field.namelen),
                        std::string(reinterpret_cast<const char*>(field.value), field.valuelen));
  }
  nghttp2_hd_inflate_del(inflater);
  return fields;
}

std::string Framed(absl::string_view message, bool packed) {
  std::string bytes(1, packed ? 1 : 0);
  AppendNumber(bytes, message.size(), 4);
  bytes.append(message.data(), message.size());
  return bytes;
}

HeaderFields RequestFields(absl::string_view path, const HeaderFields& more) {
  HeaderFields fields = {{":method", "POST"},       {":scheme", "http"}, {":path", std::string(path)},
                         {":authority", "kv.test"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
  fields.insert(fields.end(), more.begin(), more.end());
  return fields;
}

H2Bytes& H2Bytes::Raw(absl::string_view bytes) {
  bytes_.append(bytes.data(), bytes.size());
  return *this;
}

H2Bytes& H2Bytes::Frame(uint8_t type, uint8_t flags, uint32_t id, absl::string_view payload) {
  AppendNumber(bytes_, payload.size(), 3);
  bytes_.push_back(static_cast<char>(type));
  bytes_.push_back(static_cast<char>(flags));
  AppendNumber(bytes_, id, 4);
  return Raw(payload);
}

H2Bytes& H2Bytes::Settings(const std::vector<std::pair<uint16_t, uint32_t>>& entries) {
  std::string payload;
  for (const auto& [id, value] : entries) {
    AppendNumber(payload, id, 2);
    AppendNumber(payload, value, 4);
  }
  return Frame(kSettingsFrame, 0, 0, payload);
}

H2Bytes& H2Bytes::PaddedData(uint32_t id, absl::string_view bytes, size_t padding, uint8_t flags) {
  std::string payload(1, static_cast<char>(padding));
  payload.append(bytes.data(), bytes.size());
  payload.append(padding, '\0');
  return Frame(kDataFrame, static_cast<uint8_t>(flags | kPadded), id, payload);
}

H2Bytes& H2Bytes::Reset(uint32_t id, uint32_t error) {
  std::string payload;
  AppendNumber(payload, error, 4);
  return Frame(kResetFrame, 0, id, payload);
}

H2Bytes& H2Bytes::Ping(uint64_t opaque, uint8_t flags) {
  std::string payload;
  AppendNumber(payload, opaque, 8);
  return Frame(kPingFrame, flags, 0, payload);
}

H2Bytes& H2Bytes::GoAway(uint32_t last, uint32_t error, absl::string_view debug) {
  std::string payload;
  AppendNumber(payload, last, 4);
  AppendNumber(payload, error, 4);
  payload.append(debug.data(), debug.size());
  return Frame(kGoAwayFrame, 0, 0, payload);
}

H2Bytes& H2Bytes::WindowUpdate(uint32_t id, uint32_t bytes) {
  std::string payload;
  AppendNumber(payload, bytes, 4);
  return Frame(kWindowUpdateFrame, 0, id, payload);
}

std::vector<SentFrame> FramesOf(absl::string_view bytes) {
  constexpr absl::string_view kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  if (absl::StartsWith(bytes, kMagic)) bytes.remove_prefix(kMagic.size());
  std::vector<SentFrame> frames;
  const auto byte = [&bytes](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(bytes[i])); };
  while (!bytes.empty()) {
    CHECK_GE(bytes.size(), 9u) << "an incomplete frame";
    const size_t length = byte(0) << 16 | byte(1) << 8 | byte(2);
    CHECK_GE(bytes.size(), 9 + length) << "an incomplete frame";
    frames.push_back({static_cast<uint8_t>(byte(3)), static_cast<uint8_t>(byte(4)),
                      byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8), std::string(bytes.substr(9, length))});
    bytes.remove_prefix(9 + length);
  }
  return frames;
}

}  // namespace troupe::grpc_wire
