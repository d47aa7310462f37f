// RunInMemory: the plugin's generator over .proto sources, in this process, its output as strings. For tests.
//
// google/protobuf/*.proto and troupe/options.proto can be imported without being given.
#ifndef TROUPE_PROTOC_GEN_TROUPE_IN_MEMORY_H_
#define TROUPE_PROTOC_GEN_TROUPE_IN_MEMORY_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/compiler/importer.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor_database.h"

namespace troupe::generator {

// Parses .proto sources.
class InMemoryProtos {
 public:
  using Files = std::map<std::string, std::string>;

  // Sources by import path.
  explicit InMemoryProtos(Files sources);
  // Sources in a folder.
  explicit InMemoryProtos(const std::string& folder);
  ~InMemoryProtos();

  // Null when there is no such file or it does not parse: see errors().
  const google::protobuf::FileDescriptor* Find(const std::string& path);
  // "file:line:column: message\n"...
  const std::string& errors() const;

 private:
  class Tree;
  class Errors;

  explicit InMemoryProtos(std::unique_ptr<google::protobuf::compiler::SourceTree> tree);

  std::unique_ptr<google::protobuf::compiler::SourceTree> tree_;
  std::unique_ptr<Errors> errors_;
  google::protobuf::DescriptorPoolDatabase linked_in_;
  google::protobuf::compiler::SourceTreeDescriptorDatabase database_;
  google::protobuf::DescriptorPool pool_;
};

struct InMemoryOutput {
  std::map<std::string, std::string> files;
  // What the generator refused, or protoc before it.
  std::string error;
};

// Generates all of `paths` in one run, as protoc does.
InMemoryOutput RunInMemory(InMemoryProtos& protos, const std::vector<std::string>& paths,
                           const std::string& parameter = "");

}  // namespace troupe::generator

#endif  // TROUPE_PROTOC_GEN_TROUPE_IN_MEMORY_H_
