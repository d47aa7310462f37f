#include "troupe/wire/grpc/internal/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "absl/cleanup/cleanup.h"
#include "glog/logging.h"

namespace troupe::grpc_wire {
namespace {

constexpr int kGzipWindowBits = 15 + 16;  // 16: gzip's frame

z_stream StreamOf(absl::Span<const char> bytes) {
  CHECK_LE(bytes.size(), std::numeric_limits<uInt>::max());
  z_stream stream = {};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  return stream;
}

}  // namespace

Gunzipped Gunzip(absl::Span<const char> packed, size_t bytes_max, std::string& bytes) {
  bytes.clear();
  z_stream stream = StreamOf(packed);
  CHECK_EQ(inflateInit2(&stream, kGzipWindowBits), Z_OK) << "out of memory";
  const absl::Cleanup end = [&stream] { inflateEnd(&stream); };
  while (true) {
    // One byte more than allowed tells too much from just enough.
    const size_t had = bytes.size();
    const size_t room = std::min(std::max<size_t>(1024, std::max(packed.size(), had)), bytes_max + 1 - had);
    bytes.resize(had + room);
    stream.next_out = reinterpret_cast<Bytef*>(bytes.data() + had);
    stream.avail_out = static_cast<uInt>(room);
    const int result = inflate(&stream, Z_NO_FLUSH);
    bytes.resize(bytes.size() - stream.avail_out);
    if (bytes.size() > bytes_max) return Gunzipped::kTooLarge;
    if (result == Z_STREAM_END) return stream.avail_in == 0 ? Gunzipped::kOk : Gunzipped::kMalformed;
    // Nothing more came out although there was room: it is cut short.
    if (result != Z_OK || (stream.avail_out > 0 && stream.avail_in == 0)) return Gunzipped::kMalformed;
  }
}

std::string Gzip(absl::Span<const char> bytes) {
  z_stream stream = StreamOf(bytes);
  CHECK_EQ(deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, kGzipWindowBits, 8, Z_DEFAULT_STRATEGY), Z_OK)
      << "out of memory";
  const absl::Cleanup end = [&stream] { deflateEnd(&stream); };
  std::string packed(deflateBound(&stream, stream.avail_in), '\0');
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  CHECK_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(packed.size() - stream.avail_out);
  return packed;
}

}  // namespace troupe::grpc_wire
