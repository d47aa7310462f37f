// One binary, one translation unit: the messages, gRPC's service, stub and mock, and our actor, stub and protocol.
#include <string>

#include "gtest/gtest.h"
#include "library/v1/library.grpc.pb.h"
#include "library/v1/library.pb.h"
#include "library/v1/library.troupe.h"
#include "library/v1/library_mock.grpc.pb.h"

namespace library::v1 {
namespace {

// A migration's class: the old interface and the new one.
class Both final : public Library::Service, public LibraryActor {
 public:
  ::grpc::Status Find(::grpc::ServerContext*, const Outer_Inner_Key*, Book* response) override {
    response->set_title("gRPC");
    return ::grpc::Status::OK;
  }
  ::troupe::Task<::absl::Status> Find(const Outer_Inner_Key&, Book& response, ::troupe::Call&) override {
    response.set_title("Troupe");
    co_return absl::OkStatus();
  }
};

TEST(GrpcCoexistenceTest, BothSidesOfBothFitIntoOneTranslationUnit) {
  Both both;
  Book book;
  EXPECT_TRUE(both.Find(nullptr, nullptr, &book).ok());
  EXPECT_EQ(book.title(), "gRPC");
  MockLibraryStub mock;
  EXPECT_EQ(Library::service_full_name(), std::string(LibraryStub::service_info().full_name));
}

}  // namespace
}  // namespace library::v1
