#include "tools/protoc_gen_troupe/generator.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/io/printer.h"
#include "google/protobuf/io/zero_copy_stream.h"
#include "tools/protoc_gen_troupe/comments.h"
#include "tools/protoc_gen_troupe/cpp_names.h"
#include "tools/protoc_gen_troupe/refusals.h"
#include "tools/protoc_gen_troupe/session_order.h"
#include "troupe/options.pb.h"

namespace troupe::generator {
namespace {

namespace pb = ::google::protobuf;

constexpr size_t kLineMax = 120;

// One rpc, in C++.
struct Method {
  std::string name;      // Get
  std::string path;      // /kv.v1.KeyValue/Get
  std::string function;  // Get, or with an underscore behind
  std::string request;   // ::kv::v1::GetRequest
  std::string response;
  std::vector<std::string> comments;
  Paragraphs detached_comments;
  bool client_streams = false;
  bool server_streams = false;
  bool one_way = false;
  bool idempotent = false;
  bool deprecated = false;

  absl::string_view kind() const {
    if (client_streams) return server_streams ? "kBidiStreaming" : "kClientStreaming";
    return server_streams ? "kServerStreaming" : "kUnary";
  }
  // What a stub returns.
  std::string reply() const {
    if (client_streams && server_streams)
      return absl::StrCat("::troupe::ClientReaderWriter<", request, ", ", response, ">");
    if (client_streams) return absl::StrCat("::troupe::ClientWriter<", request, ", ", response, ">");
    if (server_streams) return absl::StrCat("::troupe::ClientReader<", response, ">");
    if (one_way) return "::troupe::Told";
    return absl::StrCat("::troupe::Reply<", response, ">");
  }
};

struct Service {
  std::string name;       // KeyValue
  std::string full_name;  // kv.v1.KeyValue
  std::string actor;
  std::string stub;
  std::string protocol;
  std::vector<std::string> comments;
  Paragraphs detached_comments;
  std::string order;
  std::vector<std::string> anytime;
  SessionAutomaton automaton;  // without states when there is no order
  bool serial = false;
  bool deprecated = false;
  std::vector<Method> methods;
};

Method DescribeMethod(const pb::MethodDescriptor& descriptor) {
  Method method;
  method.name = descriptor.name();
  method.path = absl::StrCat("/", descriptor.service()->full_name(), "/", descriptor.name());
  method.function = FunctionName(descriptor);
  method.request = QualifiedName(*descriptor.input_type());
  method.response = QualifiedName(*descriptor.output_type());
  method.comments = CommentsOf(descriptor);
  method.detached_comments = DetachedCommentsOf(descriptor);
  method.client_streams = descriptor.client_streaming();
  method.server_streams = descriptor.server_streaming();
  method.one_way = descriptor.options().GetExtension(troupe::call).one_way();
  method.idempotent = descriptor.options().idempotency_level() != pb::MethodOptions::IDEMPOTENCY_UNKNOWN;
  method.deprecated = descriptor.options().deprecated() || descriptor.service()->options().deprecated();
  return method;
}

Service DescribeService(const pb::ServiceDescriptor& descriptor) {
  Service service;
  service.name = descriptor.name();
  service.full_name = descriptor.full_name();
  service.actor = ActorName(descriptor);
  service.stub = StubName(descriptor);
  service.protocol = ProtocolName(descriptor);
  service.comments = CommentsOf(descriptor);
  service.detached_comments = DetachedCommentsOf(descriptor);
  const SessionDeclaration& session = descriptor.options().GetExtension(troupe::session);
  service.order = absl::StrJoin(CommentLines(session.order()), " ");
  service.anytime.assign(session.anytime().begin(), session.anytime().end());
  service.serial = descriptor.options().GetExtension(troupe::actor).serial();
  service.deprecated = descriptor.options().deprecated();
  std::vector<std::string> names;
  for (int i = 0; i < descriptor.method_count(); ++i) {
    service.methods.push_back(DescribeMethod(*descriptor.method(i)));
    names.push_back(descriptor.method(i)->name());
  }
  // It was compiled before, for refusals.
  service.automaton = CompileSessionOrder(session.order(), service.anytime, names).value_or(SessionAutomaton());
  return service;
}

// What the options of an rpc mean to who reads its declaration.
std::vector<std::string> CommentsWithOptions(const Method& method) {
  std::vector<std::string> lines = method.comments;
  if (lines.empty()) lines.push_back(absl::StrCat(method.path, "."));
  if (method.one_way) lines.emplace_back("One way: nobody waits for what becomes of it.");
  if (method.idempotent) lines.emplace_back("Idempotent: it may be sent again when its outcome is unknown.");
  if (method.deprecated) lines.emplace_back("Deprecated.");
  return lines;
}

// `head`(`parameters`)`tail`, on one line where it fits, else with the parameters on lines of their own.
std::string Declaration(absl::string_view indent, absl::string_view head, const std::vector<std::string>& parameters,
                        absl::string_view tail) {
  std::string line = absl::StrCat(indent, head, "(", absl::StrJoin(parameters, ", "), ")", tail, "\n");
  if (line.size() <= kLineMax + 1) return line;
  const std::string deeper = absl::StrCat("\n", indent, "    ");
  line = absl::StrCat(deeper, absl::StrJoin(parameters, ", "), ")", tail, "\n");
  if (line.size() > kLineMax + 2) line = absl::StrCat(deeper, absl::StrJoin(parameters, "," + deeper), ")", tail, "\n");
  return absl::StrCat(indent, head, "(", line);
}

// Parameters of the actor's function: in, out, call. `named`: as declared; else as the default body has them.
std::vector<std::string> HandlerParameters(const Method& method, bool named) {
  const auto name = [&](absl::string_view word) {
    return named ? absl::StrCat(" ", word) : absl::StrCat(" /*", word, "*/");
  };
  return {
      method.client_streams ? absl::StrCat("::troupe::Reader<", method.request, ">", name("requests"))
                            : absl::StrCat("const ", method.request, "&", name("request")),
      method.server_streams ? absl::StrCat("::troupe::Writer<", method.response, ">", name("responses"))
                            : absl::StrCat(method.response, "&", name("response")),
      absl::StrCat("::troupe::Call&", name("call")),
  };
}

std::vector<std::string> StubParameters(const Method& method, absl::string_view default_options) {
  std::vector<std::string> parameters;
  if (!method.client_streams) parameters.push_back(absl::StrCat("const ", method.request, "& request"));
  parameters.push_back(absl::StrCat("const ::troupe::CallOptions& options", default_options));
  return parameters;
}

using Variables = std::map<std::string, std::string>;

Variables VariablesOf(const Service& service) {
  return {{"full_name", service.full_name},
          {"actor", service.actor},
          {"stub", service.stub},
          {"protocol", service.protocol}};
}

void PrintParagraph(const std::vector<std::string>& lines, pb::io::Printer& printer) {
  if (lines.empty()) return;
  printer.PrintRaw("//\n");
  printer.PrintRaw(AsComment(lines, ""));
}

void PrintDetached(const Paragraphs& paragraphs, absl::string_view indent, pb::io::Printer& printer) {
  for (const std::vector<std::string>& lines : paragraphs) {
    printer.PrintRaw(AsComment(lines, indent));
    printer.PrintRaw("\n");
  }
}

void PrintActorClass(const Service& service, pb::io::Printer& printer) {
  const Variables variables = VariablesOf(service);
  PrintDetached(service.detached_comments, "", printer);
  printer.Print(variables, "// The server side of $full_name$: by default one object is one connection's.\n");
  PrintParagraph(service.comments, printer);
  printer.Print(variables, R"(//
// Derive from it and override what you serve; an rpc that is not overridden answers UNIMPLEMENTED. Parameters in order:
// what comes in, what goes out, the call; references live until the returned task is done.
//
// Life:      ConnectionMade -> (rpc | PauseWriting -> ResumeWriting)* -> EofReceived? -> ConnectionLost
// Threading: one loop; calls interleave only where they co_await.
)");
  if (!service.order.empty()) {
    printer.PrintRaw(absl::StrCat("// Session:   ", service.order, "\n"));
    if (!service.anytime.empty()) {
      printer.PrintRaw(absl::StrCat("//            at any time: ", absl::StrJoin(service.anytime, ", "), "\n"));
    }
  }
  if (service.serial) printer.PrintRaw("// Serial:    it finishes one call before it starts the next.\n");
  if (service.deprecated) printer.PrintRaw("// Deprecated.\n");
  printer.Print(variables, R"(class $actor$ : public ::troupe::Actor {
 public:
  // The first callback, before any rpc. The connection outlives the actor.
  void ConnectionMade(::troupe::Connection& connection) override { ::troupe::Actor::ConnectionMade(connection); }

)");
  for (const Method& method : service.methods) {
    PrintDetached(method.detached_comments, "  ", printer);
    printer.PrintRaw(AsComment(CommentsWithOptions(method), "  "));
    printer.PrintRaw(Declaration("  ", absl::StrCat("virtual ::troupe::Task<::absl::Status> ", method.function),
                                 HandlerParameters(method, true), ";"));
    printer.PrintRaw("\n");
  }
  printer.Print(
      variables,
      R"(  // The peer sends no more. True keeps our side open; false closes the connection and cancels what runs.
  bool EofReceived() override { return ::troupe::Actor::EofReceived(); }

  // The peer reads slower than we write: unsent output has passed the high mark.
  void PauseWriting() override { ::troupe::Actor::PauseWriting(); }

  // Unsent output has fallen to the low mark.
  void ResumeWriting() override { ::troupe::Actor::ResumeWriting(); }

  // The last callback, after the last rpc has ended. OK: the connection was closed in order.
  void ConnectionLost(const ::absl::Status& reason) override { ::troupe::Actor::ConnectionLost(reason); }

  // For the framework.
  using TroupeActor = $actor$;
  using TroupeStub = $stub$;
  static const ::troupe::ServiceInfo& service_info();
  static const ::troupe::ServiceBinding& troupe_binding();
};

)");
}

void PrintProtocolClass(const Service& service, pb::io::Printer& printer) {
  printer.Print(VariablesOf(service),
                R"(// $actor$ on the native wire, for a bare loop: CreateServer hosts it like any protocol of bytes.
//
// Use ::troupe::Server to serve several services, other wires, limits and drain.
class $protocol$ final : public ::troupe::ActorProtocol {
 public:
  explicit $protocol$(::std::unique_ptr<$actor$> actor) : $protocol$(actor.get(), ::std::move(actor)) {}

  // Decodes calls and starts the functions of the actor.
  void DataReceived(::absl::Span<const char> data) override { Feed(data); }

 private:
  // By reference, so that the pointer is taken before the owner moves.
  $protocol$($actor$* actor, ::std::unique_ptr<$actor$>&& owner)
      : ::troupe::ActorProtocol($actor$::troupe_binding(), ::std::move(owner), actor) {}
};

)");
}

void PrintStubClass(const Service& service, pb::io::Printer& printer) {
  const Variables variables = VariablesOf(service);
  printer.Print(variables, "// The client side of $full_name$.\n");
  PrintParagraph(service.comments, printer);
  printer.Print(variables, R"(//
// A call is encoded and queued before the expression returns; dropping what it returned cancels it.
// Threading: the caller's loop.     Lifetime: `caller` outlives it and its calls; copies are free.
)");
  if (!service.order.empty()) {
    printer.PrintRaw(absl::StrCat("// Session:   ", service.order, "\n"));
    printer.Print(variables,
                  "//            made by co_await channel.OpenSession<$stub$>(); what is out of order is not sent.\n");
  }
  if (service.deprecated) printer.PrintRaw("// Deprecated.\n");
  printer.Print(variables, R"(class $stub$ {
 public:
  explicit $stub$(::troupe::Caller& caller) : caller_(&caller) {}

)");
  for (const Method& method : service.methods) {
    PrintDetached(method.detached_comments, "  ", printer);
    printer.PrintRaw(AsComment(CommentsWithOptions(method), "  "));
    std::vector<absl::string_view> attributes;
    if (!method.one_way) attributes.emplace_back("nodiscard");
    if (method.deprecated) attributes.emplace_back("deprecated");
    const std::string before = attributes.empty() ? "" : absl::StrCat("[[", absl::StrJoin(attributes, ", "), "]] ");
    printer.PrintRaw(Declaration("  ", absl::StrCat(before, method.reply(), " ", method.function),
                                 StubParameters(method, " = {}"), ";"));
    printer.PrintRaw("\n");
  }
  printer.Print(R"(  static const ::troupe::ServiceInfo& service_info();

 private:
  $unused$::troupe::Caller* caller_;
};

)",
                "unused", service.methods.empty() ? "[[maybe_unused]] " : "");
}

void PrintSessionOrder(const Service& service, pb::io::Printer& printer) {
  const SessionAutomaton& automaton = service.automaton;
  printer.PrintRaw("  static constexpr ::absl::string_view steps[] = {\n");
  for (const std::string& step : automaton.steps) printer.PrintRaw(absl::StrCat("      \"", step, "\",\n"));
  printer.PrintRaw("  };\n  // A state a line, and where each step leads; 255: it is not allowed.\n");
  printer.PrintRaw("  static constexpr ::std::uint8_t next[] = {\n");
  for (size_t state = 0; state < automaton.next.size(); ++state) {
    std::string line = "     ";
    for (const int next : automaton.next[state]) {
      absl::StrAppend(&line, " ", next == SessionAutomaton::kNotAllowed ? 255 : next, ",");
    }
    printer.PrintRaw(
        absl::StrCat(line, "  // ", state, automaton.accepting[state] ? ", the session may end here" : "", "\n"));
  }
  std::string accepting;
  for (const bool accepts : automaton.accepting) {
    absl::StrAppend(&accepting, accepting.empty() ? "" : ", ", accepts ? "true" : "false");
  }
  printer.PrintRaw(absl::StrCat("  };\n  static constexpr bool accepting[] = {", accepting, "};\n"));
  printer.PrintRaw("  static constexpr ::troupe::SessionOrder order = {\n");
  printer.PrintRaw(absl::StrCat("      .service = \"", service.full_name, "\",\n"));
  printer.PrintRaw(absl::StrCat("      .text = \"", service.order, "\",\n"));
  printer.PrintRaw("      .steps = steps,\n      .next = next,\n      .accepting = accepting};\n");
}

void PrintTables(const Service& service, pb::io::Printer& printer) {
  const Variables variables = VariablesOf(service);
  const std::vector<std::string>& steps = service.automaton.steps;
  printer.Print(variables, "const ::troupe::ServiceInfo& $actor$::service_info() {\n");
  if (!steps.empty()) PrintSessionOrder(service, printer);
  if (!service.methods.empty()) {
    printer.PrintRaw("  static constexpr ::troupe::MethodInfo methods[] = {\n");
    for (const Method& method : service.methods) {
      printer.PrintRaw(absl::StrCat("      {.name = \"", method.name, "\",\n"));
      printer.PrintRaw(absl::StrCat("       .path = \"", method.path, "\",\n"));
      printer.PrintRaw(absl::StrCat("       .kind = ::troupe::CallKind::", method.kind(), ",\n"));
      printer.PrintRaw(absl::StrCat("       .request = ::troupe::MessageType::Of<", method.request, ">(),\n"));
      printer.PrintRaw(absl::StrCat("       .response = ::troupe::MessageType::Of<", method.response, ">()"));
      if (method.one_way) printer.PrintRaw(",\n       .one_way = true");
      if (method.idempotent) printer.PrintRaw(",\n       .idempotent = true");
      if (const auto step = std::find(steps.begin(), steps.end(), method.name); step != steps.end()) {
        printer.PrintRaw(absl::StrCat(",\n       .order = &order,\n       .step = ", step - steps.begin()));
      }
      printer.PrintRaw("},\n");
    }
    printer.PrintRaw("  };\n");
  }
  printer.PrintRaw(absl::StrCat("  static constexpr ::troupe::ServiceInfo info = {.full_name = \"", service.full_name,
                                "\", .methods = ", service.methods.empty() ? "{}" : "methods",
                                service.serial ? ", .serial = true" : "", "};\n"));
  printer.Print(variables, R"(  return info;
}

const ::troupe::ServiceBinding& $actor$::troupe_binding() {
)");
  if (!service.methods.empty()) {
    printer.PrintRaw("  static constexpr ::troupe::StartHandler handlers[] = {\n");
    for (const Method& method : service.methods) {
      printer.PrintRaw("      [](void* actor, ::troupe::internal::ServerCall& call) {\n");
      const std::vector<std::string> arguments = {
          absl::StrCat(method.client_streams ? "call.reader<" : "call.request<", method.request, ">()"),
          absl::StrCat(method.server_streams ? "call.writer<" : "call.response<", method.response, ">()"), "call"};
      printer.PrintRaw(Declaration("        ",
                                   absl::StrCat("return static_cast<", service.actor, "*>(actor)->", method.function),
                                   arguments, ";"));
      printer.PrintRaw("      },\n");
    }
    printer.PrintRaw("  };\n");
  }
  printer.Print(
      "  static const ::troupe::ServiceBinding binding = {.info = &service_info(), .handlers = $handlers$};\n",
      "handlers", service.methods.empty() ? "{}" : "handlers");
  printer.PrintRaw("  return binding;\n}\n\n");
}

void PrintActorBodies(const Service& service, pb::io::Printer& printer) {
  for (size_t i = 0; i < service.methods.size(); ++i) {
    const Method& method = service.methods[i];
    printer.PrintRaw(Declaration("",
                                 absl::StrCat("::troupe::Task<::absl::Status> ", service.actor, "::", method.function),
                                 HandlerParameters(method, false), " {"));
    printer.PrintRaw(
        absl::StrCat("  return ::troupe::internal::Unimplemented(service_info().methods[", i, "]);\n}\n\n"));
  }
}

void PrintStubBodies(const Service& service, pb::io::Printer& printer) {
  for (size_t i = 0; i < service.methods.size(); ++i) {
    const Method& method = service.methods[i];
    printer.PrintRaw(Declaration("", absl::StrCat(method.reply(), " ", service.stub, "::", method.function),
                                 StubParameters(method, ""), " {"));
    printer.PrintRaw(Declaration("  ", absl::StrCat("return ", method.reply()),
                                 {absl::StrCat("caller_->StartCall(service_info().methods[", i, "], options, ",
                                               method.client_streams ? "nullptr" : "&request", ")")},
                                 ";"));
    printer.PrintRaw("}\n\n");
  }
  printer.Print(VariablesOf(service),
                "const ::troupe::ServiceInfo& $stub$::service_info() { return $actor$::service_info(); }\n\n");
}

void PrintHeader(const pb::FileDescriptor& file, const std::vector<Service>& services, pb::io::Printer& printer) {
  const Variables variables = {{"file", file.name()},
                               {"guard", "TROUPE_INCLUDED_" + FileIdentifier(file.name())},
                               {"namespace", Namespace(file.package())}};
  printer.Print(variables, "// Generated by protoc-gen-troupe from $file$. Do not edit.\n");
  for (const std::vector<std::string>& lines : HeadOf(file)) PrintParagraph(lines, printer);
  printer.Print(variables, R"(#ifndef $guard$
#define $guard$

)");
  // The messages of imported files come through the file's own header: protoc promises that, and a library then depends
  // on its own cc_proto_library only.
  std::set<std::string> headers = {Stem(file.name()) + ".pb.h"};
  if (!services.empty()) {
    printer.PrintRaw("#include <memory>\n#include <utility>\n\n");
    headers.insert({"absl/status/status.h", "absl/types/span.h", "troupe/actor/actor.h", "troupe/async/task.h",
                    "troupe/rpc/call.h", "troupe/rpc/caller.h", "troupe/rpc/method.h", "troupe/rpc/reply.h",
                    "troupe/rpc/stream.h", "troupe/service/actor_protocol.h"});
  }
  for (const std::string& header : headers) printer.PrintRaw(absl::StrCat("#include \"", header, "\"\n"));
  printer.PrintRaw("\n");
  if (services.empty()) {
    printer.PrintRaw("// The file declares no service.\n\n");
  } else {
    if (!file.package().empty()) printer.Print(variables, "namespace $namespace$ {\n\n");
    for (const Service& service : services) printer.PrintRaw(absl::StrCat("class ", service.stub, ";\n"));
    printer.PrintRaw("\n");
    for (const Service& service : services) {
      PrintActorClass(service, printer);
      PrintProtocolClass(service, printer);
      PrintStubClass(service, printer);
    }
    if (!file.package().empty()) printer.Print(variables, "}  // namespace $namespace$\n\n");
  }
  printer.Print(variables, "#endif  // $guard$\n");
}

void PrintSource(const pb::FileDescriptor& file, const std::vector<Service>& services, pb::io::Printer& printer) {
  const Variables variables = {{"file", file.name()},
                               {"stem", Stem(file.name())},
                               {"identifier", FileIdentifier(file.name())},
                               {"namespace", Namespace(file.package())}};
  printer.Print(variables, R"(// Generated by protoc-gen-troupe from $file$. Do not edit.
#include "$stem$.troupe.h"
)");
  if (services.empty()) return;
  const bool ordered = std::any_of(services.begin(), services.end(),
                                   [](const Service& service) { return !service.automaton.steps.empty(); });
  printer.PrintRaw(ordered ? "\n#include <cstdint>\n\n#include \"absl/strings/string_view.h\"\n" : "\n");
  printer.PrintRaw("#include \"troupe/rpc/internal/server_call.h\"\n");
  printer.PrintRaw(ordered ? "#include \"troupe/rpc/session_order.h\"\n\n" : "\n");
  // protoc's own code registers the file's descriptors, and a linker that meets no other name of it leaves it out. The
  // lite runtime has none.
  if (file.options().optimize_for() != pb::FileOptions::LITE_RUNTIME) {
    printer.Print(variables, R"(// Reflection tells of the services by the file's descriptors: naming them links them.
namespace {
[[gnu::used]] constexpr const void* kTroupeDescriptors_$identifier$ = &::descriptor_table_$identifier$;
}  // namespace

)");
  }
  if (!file.package().empty()) printer.Print(variables, "namespace $namespace$ {\n\n");
  for (const Service& service : services) {
    PrintTables(service, printer);
    PrintActorBodies(service, printer);
    PrintStubBodies(service, printer);
  }
  if (!file.package().empty()) printer.Print(variables, "}  // namespace $namespace$\n");
}

void WriteFiles(const pb::FileDescriptor& file, pb::compiler::GeneratorContext& context) {
  std::vector<Service> services;
  for (int i = 0; i < file.service_count(); ++i) services.push_back(DescribeService(*file.service(i)));
  {
    const std::unique_ptr<pb::io::ZeroCopyOutputStream> out(context.Open(Stem(file.name()) + ".troupe.h"));
    pb::io::Printer printer(out.get(), '$');
    PrintHeader(file, services, printer);
  }
  const std::unique_ptr<pb::io::ZeroCopyOutputStream> out(context.Open(Stem(file.name()) + ".troupe.cc"));
  pb::io::Printer printer(out.get(), '$');
  PrintSource(file, services, printer);
}

}  // namespace

bool Generator::Generate(const pb::FileDescriptor* file, const std::string& parameter,
                         pb::compiler::GeneratorContext* context, std::string* error) const {
  return GenerateAll({file}, parameter, context, error);
}

bool Generator::GenerateAll(const std::vector<const pb::FileDescriptor*>& files, const std::string& parameter,
                            pb::compiler::GeneratorContext* context, std::string* error) const {
  if (!parameter.empty()) {
    *error = absl::StrCat("protoc-gen-troupe takes no parameters, but was given \"", parameter, "\"");
    return false;
  }
  if (const std::vector<std::string> refusals = Refusals(files); !refusals.empty()) {
    *error = absl::StrJoin(refusals, "\n");
    return false;
  }
  for (const pb::FileDescriptor* file : files) WriteFiles(*file, *context);
  return true;
}

}  // namespace troupe::generator
