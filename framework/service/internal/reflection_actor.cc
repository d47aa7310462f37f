#include "troupe/service/internal/reflection_actor.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "troupe/base/socket_address.h"
#include "troupe/base/status_macros.h"
#include "troupe/rpc/until_draining.h"

namespace troupe::internal {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptor;

// A question comes back in its answer: names of types and files are shorter.
constexpr size_t kQuestionBytesMax = 4 << 10;

const DescriptorPool& Pool() { return *DescriptorPool::generated_pool(); }

absl::StatusOr<const FileDescriptor*> Found(const FileDescriptor* file, absl::string_view what,
                                            absl::string_view name) {
  if (file == nullptr) return absl::NotFoundError(absl::StrCat("no ", what, " ", name, " here"));
  return file;
}

absl::StatusOr<const FileDescriptor*> FileOfExtension(const std::string& type, int number) {
  const Descriptor* const extended = Pool().FindMessageTypeByName(type);
  const FieldDescriptor* const extension =
      extended == nullptr ? nullptr : Pool().FindExtensionByNumber(extended, number);
  return Found(extension == nullptr ? nullptr : extension->file(), "extension", absl::StrCat(number, " of ", type));
}

absl::StatusOr<std::vector<int>> ExtensionNumbers(const std::string& type) {
  const Descriptor* const extended = Pool().FindMessageTypeByName(type);
  if (extended == nullptr) return absl::NotFoundError(absl::StrCat("no message ", type, " here"));
  std::vector<const FieldDescriptor*> extensions;
  Pool().FindAllExtensions(extended, &extensions);
  std::vector<int> numbers;
  for (const FieldDescriptor* const extension : extensions) numbers.push_back(extension->number());
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

// What one stream has been told.
class Conversation {
 public:
  explicit Conversation(const ServiceTable& table) : table_(table) {}

  template <class Request, class Response>
  void Answer(const Request& request, Response& response) {
    response.Clear();
    response.set_valid_host(request.host());
    *response.mutable_original_request() = request;
    const absl::Status status = Fill(request, response);
    if (status.ok()) return;
    response.mutable_error_response()->set_error_code(static_cast<int>(status.code()));
    response.mutable_error_response()->set_error_message(std::string(status.message()));
  }

 private:
  template <class Request, class Response>
  absl::Status Fill(const Request& request, Response& response) {
    absl::StatusOr<const FileDescriptor*> file = nullptr;
    switch (request.message_request_case()) {
      case Request::kFileByFilename:
        file = Found(Pool().FindFileByName(request.file_by_filename()), "file", request.file_by_filename());
        break;
      case Request::kFileContainingSymbol:
        file = Found(Pool().FindFileContainingSymbol(request.file_containing_symbol()), "symbol",
                     request.file_containing_symbol());
        break;
      case Request::kFileContainingExtension:
        file = FileOfExtension(request.file_containing_extension().containing_type(),
                               request.file_containing_extension().extension_number());
        break;
      case Request::kAllExtensionNumbersOfType: {
        ASSIGN_OR_RETURN(const std::vector<int> numbers, ExtensionNumbers(request.all_extension_numbers_of_type()));
        auto& answer = *response.mutable_all_extension_numbers_response();
        answer.set_base_type_name(request.all_extension_numbers_of_type());
        for (const int number : numbers) answer.add_extension_number(number);
        return absl::OkStatus();
      }
      case Request::kListServices: {
        std::vector<std::string> names;
        for (const ServiceInfo* const service : table_.services()) names.emplace_back(service->full_name);
        std::sort(names.begin(), names.end());
        auto& answer = *response.mutable_list_services_response();
        for (std::string& name : names) answer.add_service()->set_name(std::move(name));
        return absl::OkStatus();
      }
      case Request::MESSAGE_REQUEST_NOT_SET:
        return absl::InvalidArgumentError("nothing is asked");
    }
    RETURN_IF_ERROR(file.status());
    told_.erase(*file);  // what is asked for by name is told again
    Tell(**file, *response.mutable_file_descriptor_response());
    return absl::OkStatus();
  }

  template <class Files>
  void Tell(const FileDescriptor& file, Files& files) {
    if (!told_.insert(&file).second) return;
    google::protobuf::FileDescriptorProto proto;
    file.CopyTo(&proto);
    proto.SerializeToString(files.add_file_descriptor_proto());
    for (int i = 0; i < file.dependency_count(); ++i) Tell(*file.dependency(i), files);
  }

  const ServiceTable& table_;
  absl::flat_hash_set<const FileDescriptor*> told_;  // asked for membership only
};

template <class Request, class Response>
Task<absl::Status> Converse(Reader<Request> questions, Writer<Response> answers, const ServiceTable& table) {
  Conversation conversation(table);
  Request request;
  Response response;
  while (true) {
    const bool more = co_await questions.Read(request);
    if (!more) co_return absl::OkStatus();
    if (request.ByteSizeLong() > kQuestionBytesMax) {
      co_return absl::InvalidArgumentError(
          absl::StrCat("a question of ", request.ByteSizeLong(), " bytes, at most ", kQuestionBytesMax));
    }
    conversation.Answer(request, response);
    const bool goes_on = co_await answers.Write(response);
    if (!goes_on) co_return absl::CancelledError("the caller has gone");
  }
}

}  // namespace

template <class Generated, class Question, class Answer>
Task<absl::Status> ReflectionActor<Generated, Question, Answer>::ServerReflectionInfo(Reader<Question> questions,
                                                                                      Writer<Answer> answers,
                                                                                      Call& call) {
  const SocketAddress& local = call.connection().local();
  if (!options_.everywhere && local.family() != AF_UNSPEC && !local.is_loopback()) {
    co_return absl::UnimplementedError("reflection is not offered here: ServerOptions::reflection");
  }
  Task<absl::Status> conversation = Converse(std::move(questions), std::move(answers), *options_.table);
  co_return co_await UntilDraining(call, std::move(conversation));
}

template class ReflectionActor<grpc::reflection::v1::ServerReflectionActor,
                               grpc::reflection::v1::ServerReflectionRequest,
                               grpc::reflection::v1::ServerReflectionResponse>;
template class ReflectionActor<grpc::reflection::v1alpha::ServerReflectionActor,
                               grpc::reflection::v1alpha::ServerReflectionRequest,
                               grpc::reflection::v1alpha::ServerReflectionResponse>;

}  // namespace troupe::internal
