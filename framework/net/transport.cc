#include "troupe/net/transport.h"

#include <cstring>
#include <utility>

#include "troupe/base/errors.h"

namespace troupe {

Transport& BaseProtocol::transport() const {
  if (transport_ == nullptr) throw InvalidState("the protocol has no transport: ConnectionMade has not come yet");
  return *transport_;
}

void Transport::Write(const char* text) {
  // Write({}) comes here.
  Write(text == nullptr ? absl::Span<const char>() : absl::MakeConstSpan(text, std::strlen(text)));
}

void Transport::SetProtocol(std::unique_ptr<BaseProtocol> protocol) {
  loop().DeleteLater(ExchangeProtocol(std::move(protocol)));
}

}  // namespace troupe
