#include "troupe/rpc/internal/message_weight.h"

#include <cstdint>
#include <utility>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/wire_format_lite.h"

namespace troupe::internal {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;

// In quarters.
constexpr size_t kScalar = 1;
constexpr size_t kObject = 4;
constexpr size_t kUnknown = 16;
constexpr size_t kUnknownGroup = 48;
constexpr size_t kPackedBytes = 4;  // as many bytes of packed fields as are worth kScalar
constexpr int kDepthMost = 100;     // as the parser has it

class Scale {
 public:
  // `guess`: the type is not known, but the program has one: what may be a message is taken for one.
  Scale(size_t most, bool guess) : left_(most), guess_(guess) {}

  // False: too heavy, or malformed: broken() tells.
  bool Weigh(const char*& at, const char* end, const Descriptor* type, int depth, uint32_t group) {
    if (depth > kDepthMost) return Broken();
    while (at < end) {
      uint64_t tag = 0;
      if (!ReadVarint(at, end, tag) || tag > UINT32_MAX || tag < 8) return Broken();
      const auto number = static_cast<uint32_t>(tag >> 3);
      const auto wire = static_cast<WireFormatLite::WireType>(tag & 7);
      if (wire == WireFormatLite::WIRETYPE_END_GROUP) return number == group ? true : Broken();
      const FieldDescriptor* const field =
          type == nullptr ? nullptr : type->FindFieldByNumber(static_cast<int>(number));
      if (!Take(field == nullptr && !guess_ ? kUnknown : kScalar)) return false;
      switch (wire) {
        case WireFormatLite::WIRETYPE_VARINT: {
          uint64_t value = 0;
          if (!ReadVarint(at, end, value)) return Broken();
          break;
        }
        case WireFormatLite::WIRETYPE_FIXED64:
          if (end - at < 8) return Broken();
          at += 8;
          break;
        case WireFormatLite::WIRETYPE_FIXED32:
          if (end - at < 4) return Broken();
          at += 4;
          break;
        case WireFormatLite::WIRETYPE_LENGTH_DELIMITED: {
          uint64_t length = 0;
          if (!ReadVarint(at, end, length) || length > static_cast<uint64_t>(end - at)) return Broken();
          const char* const behind = at + length;
          if (guess_ && !Guess(at, behind, depth)) return false;
          if (field != nullptr && !WeighDelimited(*field, at, behind, depth)) return false;
          at = behind;
          break;
        }
        case WireFormatLite::WIRETYPE_START_GROUP: {
          const bool known = field != nullptr && field->type() == FieldDescriptor::TYPE_GROUP;
          if (!Take(known || guess_ ? kObject : kUnknownGroup - kUnknown)) return false;
          if (!Weigh(at, end, known ? field->message_type() : nullptr, depth + 1, number)) return false;
          break;
        }
        default:
          return Broken();
      }
    }
    return group == 0 ? true : Broken();
  }
  bool broken() const { return broken_; }

 private:
  bool WeighDelimited(const FieldDescriptor& field, const char* at, const char* end, int depth) {
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) return Take(kObject - kScalar);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      return Take(kObject - kScalar) && Weigh(at, end, field.message_type(), depth + 1, 0);
    }
    return Take(static_cast<size_t>(end - at) / kPackedBytes * kScalar);
  }

  bool Guess(const char* at, const char* end, int depth) {
    if (!Take(kObject - kScalar)) return false;
    const size_t left = left_;
    if (Weigh(at, end, nullptr, depth + 1, 0)) return true;
    if (!std::exchange(broken_, false)) return false;
    left_ = left;  // a string
    return true;
  }

  static bool ReadVarint(const char*& at, const char* end, uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 70 && at < end; shift += 7) {
      const auto byte = static_cast<uint8_t>(*at++);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool Take(size_t weight) {
    if (weight > left_) return false;
    left_ -= weight;
    return true;
  }
  bool Broken() {
    broken_ = true;
    return false;
  }

  size_t left_;
  const bool guess_;
  bool broken_ = false;
};

}  // namespace

bool IsLight(absl::Span<const char> bytes, const google::protobuf::MessageLite& message, size_t most) {
  if (bytes.size() < kLightMessageBytes || most == SIZE_MAX) return true;
  const auto* const full = dynamic_cast<const google::protobuf::Message*>(&message);
  return IsLight(bytes, full == nullptr ? nullptr : full->GetDescriptor(), most);
}

bool IsLight(absl::Span<const char> bytes, const Descriptor* type, size_t most) {
  Scale scale(most > SIZE_MAX / 4 ? SIZE_MAX : 4 * most, /*guess=*/type == nullptr);
  const char* at = bytes.data();
  return scale.Weigh(at, at + bytes.size(), type, 0, 0) || scale.broken();
}

}  // namespace troupe::internal
