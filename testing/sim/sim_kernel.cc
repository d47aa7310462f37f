#include "troupe/testing/sim/sim_kernel.h"

#include "absl/strings/str_cat.h"
#include "troupe/testing/sim/sim_os.h"

namespace troupe::testing {

SimKernel::SimKernel(uint64_t seed) : seed_(seed), random_(seed), clock_(trace_), network_(clock_, random_.Fork()) {}

SimClock::EventId SimKernel::At(MonotonicTime time, absl::AnyInvocable<void()> event) {
  return clock_.At(time, [this, event = std::move(event)]() mutable {
    clock_.NoteForeignCode();
    event();
  });
}

void SimKernel::SetLink(const SimOs& from, const SimOs& to, const SimLink& link) {
  network_.SetLink(from.number(), to.number(), link);
}

const SimLink& SimKernel::Link(const SimOs& from, const SimOs& to) const {
  return network_.Link(from.number(), to.number());
}

void SimKernel::SetName(const std::string& name, std::vector<SocketAddress> addresses) {
  names_.insert_or_assign(name, std::move(addresses));
}

void SimKernel::SetNameError(const std::string& name, absl::Status status) {
  names_.insert_or_assign(name, std::move(status));
}

absl::StatusOr<std::vector<SocketAddress>> SimKernel::LookUp(const std::string& name) const {
  const auto found = names_.find(name);
  if (found == names_.end()) return absl::NotFoundError(absl::StrCat("no such host: ", name));
  return found->second;
}

std::string SimKernel::NameOf(const SocketAddress& address) const {
  for (const auto& [name, addresses] : names_) {
    if (!addresses.ok()) continue;
    for (const SocketAddress& named : *addresses) {
      if (named.family() == address.family() && named.host() == address.host()) return name;
    }
  }
  return "";
}

}  // namespace troupe::testing
