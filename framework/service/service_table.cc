#include "troupe/service/service_table.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "troupe/base/errors.h"

namespace troupe {

const internal::ServedMethod* ServiceTable::Find(absl::string_view path) const {
  const auto found = methods_.find(path);
  return found == methods_.end() ? nullptr : &found->second;
}

bool ServiceTable::Offers(absl::string_view service) const {
  return std::any_of(services_.begin(), services_.end(),
                     [service](const ServiceInfo* known) { return known->full_name == service; });
}

void ServiceTable::AddActor(const ServiceBinding& binding, std::unique_ptr<Actor> actor, void* generated) {
  AddBinding(binding, static_cast<uint32_t>(actors_.size()), nullptr, generated);
  // Given away once, to the only connection; shared because a std::function must be copyable.
  auto once = std::make_shared<std::unique_ptr<Actor>>(std::move(actor));
  actors_.push_back({[once](Connection&) { return std::move(*once); }, /*at_connection=*/true, binding.info->serial});
}

void ServiceTable::AddBinding(const ServiceBinding& binding, uint32_t actor, void* (*cast)(Actor&), void* fixed) {
  if (Offers(binding.info->full_name)) {
    throw InvalidState(absl::StrCat("the service ", binding.info->full_name, " was added before"));
  }
  services_.push_back(binding.info);
  for (size_t i = 0; i < binding.info->methods.size(); ++i) {
    const MethodInfo& method = binding.info->methods[i];
    const auto index = static_cast<uint32_t>(methods_.size());
    methods_[method.path] = {&method,
                             binding.handlers[i],
                             cast,
                             fixed,
                             actor,
                             index,
                             internal::CoreRef<internal::ServerCallPool>(new internal::ServerCallPool)};
  }
}

}  // namespace troupe
