// ServiceTable: which services a server offers, and how the actors behind them are made.
//
// Filled by Server::Add before the server starts, read by every session afterwards.
//
// Threading: one loop.     Lifetime: outlives the sessions that use it.
#ifndef TROUPE_SERVICE_SERVICE_TABLE_H_
#define TROUPE_SERVICE_SERVICE_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "troupe/actor/actor.h"
#include "troupe/rpc/connection.h"
#include "troupe/rpc/interceptor.h"
#include "troupe/rpc/internal/call_core.h"
#include "troupe/rpc/method.h"
#include "troupe/service/internal/server_call_pool.h"

namespace troupe {

// The services of a class that implements several generated actors, which must say so:
//   class Account final : public LedgerActor, public AuditActor {
//    public:
//     using Services = troupe::Services<LedgerActor, AuditActor>;
// One object then serves them all.
template <class First, class... Rest>
struct Services {};

namespace internal {

struct ServedMethod {
  const MethodInfo* info = nullptr;
  StartHandler start = nullptr;
  // The generated class within the user's object, as `start` wants it: `fixed`, or else what `cast` gives.
  void* (*cast)(Actor& actor) = nullptr;
  void* fixed = nullptr;
  uint32_t actor = 0;  // which of the connection's actors
  uint32_t index = 0;  // of all methods of the table
  CoreRef<ServerCallPool> pool;

  void* generated(Actor& of) const { return fixed != nullptr ? fixed : cast(of); }
};

struct ServedActor {
  std::function<std::unique_ptr<Actor>(Connection&)> make;
  bool at_connection = true;  // made when the connection stands, not at its first call
  bool serial = false;        // it finishes one call before it starts the next
};

template <class S>
concept DeclaresServices = requires {
  typename S::Services;
};
template <class S>
concept HasOneService = requires {
  typename S::TroupeActor;
};

template <class S>
struct ServicesOf {
  static_assert(HasOneService<S>,
                "the class must derive from a generated actor; if it derives from several, it must declare "
                "`using Services = troupe::Services<FirstActor, SecondActor>;`");
  using type = Services<typename S::TroupeActor>;
};
template <DeclaresServices S>
struct ServicesOf<S> {
  using type = typename S::Services;
};

// Does S (or a base of its between it and the generated class) override ConnectionMade?
template <class S, class Generated>
constexpr bool OverridesConnectionMade() {
  if constexpr (requires { &S::ConnectionMade; }) {
    return !std::is_same_v<decltype(&S::ConnectionMade), decltype(&Generated::ConnectionMade)>;
  } else {
    return true;  // private: overridden
  }
}

}  // namespace internal

class ServiceTable {
 public:
  ServiceTable() = default;
  ServiceTable(const ServiceTable&) = delete;
  ServiceTable& operator=(const ServiceTable&) = delete;

  // One S per connection, built from const references to the decayed arguments: pass std::ref for what is shared.
  // Throws InvalidState when a service is offered already.
  template <class S, class... Args>
  void Add(Args&&... args) {
    static_assert(!std::is_abstract_v<S>, "the class has pure virtual functions left");
    constexpr bool kBuilds = std::is_constructible_v<S, const std::decay_t<Args>&...> &&
                             (std::is_copy_constructible_v<std::decay_t<Args>> && ...);
    static_assert(std::is_abstract_v<S> || kBuilds,
                  "the class has no constructor for const references to copies of these arguments, and each connection "
                  "gets an object of its own: pass std::ref(x) for what they share, or use AddFactory");
    if constexpr (kBuilds) {
      AddFactory<S>([arguments = std::tuple<std::decay_t<Args>...>(std::forward<Args>(args)...)](Connection&) {
        return std::apply([](const auto&... each) { return std::make_unique<S>(each...); }, arguments);
      });
    }
  }
  // `factory(Connection&)` gives a std::unique_ptr<S> for each connection.
  template <class S, class Factory>
  void AddFactory(Factory factory) {
    AddAll<S>(std::move(factory), typename internal::ServicesOf<S>::type());
  }

  // One actor that exists already, for one connection.
  void AddActor(const ServiceBinding& binding, std::unique_ptr<Actor> actor, void* generated);

  // Full names, with the package.
  bool Offers(absl::string_view service) const;

  // Behind those that are there. See rpc/interceptor.h.
  void AddInterceptor(ServerInterceptor interceptor) { interceptors_.push_back(std::move(interceptor)); }
  const std::vector<ServerInterceptor>& interceptors() const { return interceptors_; }

  // Null: no such method here.
  const internal::ServedMethod* Find(absl::string_view path) const;
  absl::Span<const internal::ServedActor> actors() const { return actors_; }
  size_t methods() const { return methods_.size(); }
  // In order of addition.
  absl::Span<const ServiceInfo* const> services() const { return services_; }

 private:
  template <class S, class Factory, class First, class... Rest>
  void AddAll(Factory factory, Services<First, Rest...>) {
    const auto actor = static_cast<uint32_t>(actors_.size());
    AddBinding(First::troupe_binding(), actor, &Generated<S, First, First>);
    (AddBinding(Rest::troupe_binding(), actor, &Generated<S, First, Rest>), ...);
    actors_.push_back({[factory = std::move(factory)](Connection& connection) -> std::unique_ptr<Actor> {
                         // The Actor of the first service drives the life of the object.
                         std::unique_ptr<First> made = factory(connection);
                         return made;
                       },
                       internal::OverridesConnectionMade<S, First>(),
                       // One object has one turn for all its services.
                       First::troupe_binding().info->serial || (Rest::troupe_binding().info->serial || ...)});
  }
  template <class S, class First, class Wanted>
  static void* Generated(Actor& actor) {
    return static_cast<Wanted*>(static_cast<S*>(static_cast<First*>(&actor)));
  }
  void AddBinding(const ServiceBinding& binding, uint32_t actor, void* (*cast)(Actor&), void* fixed = nullptr);

  absl::flat_hash_map<absl::string_view, internal::ServedMethod> methods_;  // looked up only
  std::vector<internal::ServedActor> actors_;
  std::vector<const ServiceInfo*> services_;
  std::vector<ServerInterceptor> interceptors_;
};

}  // namespace troupe

#endif  // TROUPE_SERVICE_SERVICE_TABLE_H_
