// How this test works: two clients of ours reach one server of ours through nginx, and through HAProxy, as Debian has
// them. The server's answers say by which connection a call came, so that the test sees that both came by the same one:
// what an actor keeps in its members would be shared by strangers, and Connection::single_client() says so.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "echo/v1/echo.troupe.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/testing/child_process.h"
#include "troupe/async/sleep.h"
#include "troupe/async/task.h"
#include "troupe/base/socket_address.h"
#include "troupe/loop/event_loop.h"
#include "troupe/os/posix_os.h"
#include "troupe/rpc/call.h"
#include "troupe/service/channel.h"
#include "troupe/service/server.h"
#include "troupe/service/session.h"
#include "troupe/testing/matchers.h"

namespace echo::v1 {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using troupe::Task;

// Answers with the connection that a call came by, its wire, and whether it is one client's.
class WhichConnection final : public EchoActor {
 public:
  void ConnectionMade(troupe::Connection&) override {}
  Task<absl::Status> Echo(const EchoRequest&, EchoResponse& response, troupe::Call& call) override {
    const troupe::Connection& connection = call.connection();
    response.set_message(absl::StrCat(connection.peer().ToString(), " ", connection.wire(),
                                      connection.single_client() ? " of one client" : " of many clients"));
    co_return absl::OkStatus();
  }
};

struct Proxy {
  std::string name;
  // Of a proxy on FOLDER/front, for a server at ADDRESS.
  std::string (*configuration)(const std::string& folder, const std::string& address);
  std::vector<std::string> (*command)(const std::string& folder);
};

const Proxy kProxies[] = {
    {"nginx",
     [](const std::string& folder, const std::string& address) {
       std::string temporary;
       for (const char* kind : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"}) {
         absl::StrAppend(&temporary, kind, "_temp_path ", folder, "/", kind, ";\n");
       }
       return absl::StrCat("daemon off; user root; worker_processes 1; error_log stderr warn; pid ", folder,
                           "/pid;\nevents { worker_connections 64; }\nhttp {\naccess_log off;\n", temporary,
                           "upstream back { server ", address, "; keepalive 1; }\nserver { listen unix:", folder,
                           "/front http2; location / { grpc_pass grpc://back; } }\n}\n");
     },
     [](const std::string& folder) {
       return std::vector<std::string>{"/usr/sbin/nginx", "-p", folder, "-e", "stderr", "-c", folder + "/conf"};
     }},
    {"haproxy",
     // Each of its threads has connections of its own.
     [](const std::string& folder, const std::string& address) {
       return absl::StrCat(
           "global\n nbthread 1\ndefaults\n mode http\n timeout connect 10s\n timeout client 60s\n timeout server "
           "60s\n http-reuse always\n"
           "frontend front\n bind unix@",
           folder, "/front proto h2\n default_backend back\nbackend back\n server back ", address, " proto h2\n");
     },
     [](const std::string& folder) {
       return std::vector<std::string>{"/usr/sbin/haproxy", "-db", "-f", folder + "/conf"};
     }},
};

class BehindAProxy : public ::testing::TestWithParam<Proxy> {
 protected:
  BehindAProxy() {
    char folder[] = "/tmp/proxyXXXXXX";
    EXPECT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    server_.Add<WhichConnection>();
    EXPECT_OK(loop_.RunUntilComplete(server_.Start()));
    std::ofstream(folder_ + "/conf") << GetParam().configuration(folder_, server_.addresses()[0].ToString());
    proxy_ = std::make_unique<services::ChildProcess>(GetParam().command(folder_));
    // It says in no other way that it listens.
    for (int i = 0; i < 6000 && !Listens(); ++i) loop_.RunUntilComplete(troupe::Sleep(absl::Milliseconds(10)));
    EXPECT_TRUE(Listens()) << proxy_->errors();
  }
  ~BehindAProxy() override {
    proxy_.reset();
    server_.Close();
    loop_.RunUntilComplete(server_.WaitClosed());
    loop_.Close();
    EXPECT_EQ(std::system(absl::StrCat("rm -rf ", folder_).c_str()), 0);  // NOLINT(concurrency-mt-unsafe): one thread
  }
  bool Listens() const {
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = folder_ + "/front";
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const bool connected = ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
    ::close(probe);
    return connected;
  }
  std::string Ask(troupe::Channel& channel) {
    const absl::StatusOr<EchoResponse> response =
        loop_.RunUntilComplete(EchoStub(channel).Echo(EchoRequest()).AsTask());
    return response.ok() ? response->message() : response.status().ToString();
  }

  troupe::EventLoop loop_{troupe::PosixOs::Get()};
  troupe::Server server_{loop_, {.listen = {"127.0.0.1:0"}}};
  std::string folder_;
  std::unique_ptr<services::ChildProcess> proxy_;
};

INSTANTIATE_TEST_SUITE_P(Debian, BehindAProxy, ::testing::ValuesIn(kProxies),
                         [](const auto& info) { return info.param.name; });

TEST_P(BehindAProxy, TwoClientsShareAConnectionWhichIsNotOneClients) {
  const troupe::ChannelOptions options{.wire = troupe::Wire::kGrpc};
  troupe::Channel one(loop_, absl::StrCat("unix:", folder_, "/front"), options);
  troupe::Channel other(loop_, absl::StrCat("unix:", folder_, "/front"), options);
  std::set<std::string> answers;
  for (int i = 0; i < 5; ++i) {
    answers.insert(Ask(one));
    answers.insert(Ask(other));
  }
  EXPECT_THAT(answers, SizeIs(1)) << "all calls came by one connection";
  EXPECT_THAT(*answers.begin(), HasSubstr(" h2 of many clients"));
  EXPECT_EQ(one.connections_made() + other.connections_made(), 2u);
}

TEST_P(BehindAProxy, AClientOfItsOwnIsOneClient) {
  troupe::Channel direct(loop_, server_.addresses()[0].ToString(), {.wire = troupe::Wire::kNative});
  EXPECT_THAT(Ask(direct), HasSubstr(" troupe/1 of one client"));
}

}  // namespace
}  // namespace echo::v1
