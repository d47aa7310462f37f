#include "tools/protoc_gen_troupe/in_memory.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/compiler/code_generator.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "tools/protoc_gen_troupe/generator.h"
#include "troupe/options.pb.h"

namespace troupe::generator {
namespace {

namespace pb = ::google::protobuf;

class InMemoryContext final : public pb::compiler::GeneratorContext {
 public:
  explicit InMemoryContext(std::map<std::string, std::string>& files) : files_(files) {}
  pb::io::ZeroCopyOutputStream* Open(const std::string& path) override {
    return new pb::io::StringOutputStream(&files_[path]);
  }

 private:
  std::map<std::string, std::string>& files_;
};

std::unique_ptr<pb::compiler::SourceTree> MapFolder(const std::string& folder) {
  auto tree = absl::make_unique<pb::compiler::DiskSourceTree>();
  tree->MapPath("", folder);
  return tree;
}

}  // namespace

class InMemoryProtos::Tree final : public pb::compiler::SourceTree {
 public:
  explicit Tree(Files files) : files_(std::move(files)) {}
  pb::io::ZeroCopyInputStream* Open(const std::string& path) override {
    const auto file = files_.find(path);
    if (file == files_.end()) return nullptr;
    return new pb::io::ArrayInputStream(file->second.data(), static_cast<int>(file->second.size()));
  }

 private:
  const Files files_;
};

class InMemoryProtos::Errors final : public pb::compiler::MultiFileErrorCollector {
 public:
  void AddError(const std::string& file, int line, int column, const std::string& message) override {
    absl::StrAppend(&text, file, ":", line + 1, ":", column + 1, ": ", message, "\n");
  }
  std::string text;
};

InMemoryProtos::InMemoryProtos(Files sources) : InMemoryProtos(absl::make_unique<Tree>(std::move(sources))) {}

InMemoryProtos::InMemoryProtos(const std::string& folder) : InMemoryProtos(MapFolder(folder)) {}

InMemoryProtos::InMemoryProtos(std::unique_ptr<pb::compiler::SourceTree> tree)
    : tree_(std::move(tree)),
      errors_(absl::make_unique<Errors>()),
      linked_in_(*pb::DescriptorPool::generated_pool()),
      database_(tree_.get(), &linked_in_),
      pool_(&database_, database_.GetValidationErrorCollector()) {
  database_.RecordErrorsTo(errors_.get());
  SessionDeclaration::descriptor();  // troupe/options.proto is linked in
}

InMemoryProtos::~InMemoryProtos() = default;

const pb::FileDescriptor* InMemoryProtos::Find(const std::string& path) { return pool_.FindFileByName(path); }

const std::string& InMemoryProtos::errors() const { return errors_->text; }

InMemoryOutput RunInMemory(InMemoryProtos& protos, const std::vector<std::string>& paths,
                           const std::string& parameter) {
  InMemoryOutput output;
  std::vector<const pb::FileDescriptor*> files;
  for (const std::string& path : paths) {
    files.push_back(protos.Find(path));
    if (files.back() == nullptr) {
      output.error = absl::StrCat("protoc: ", path, ": ", protos.errors());
      return output;
    }
  }
  InMemoryContext context(output.files);
  const bool done = Generator().GenerateAll(files, parameter, &context, &output.error);
  if (done != output.error.empty()) output.error += "(the generator's result and its error do not agree)";
  return output;
}

}  // namespace troupe::generator
