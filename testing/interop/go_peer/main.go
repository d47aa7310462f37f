// The other end, by Go's gRPC: server and client of the interoperability tests.
//
//	go_peer server --port=0 [--use_tls --tls_cert_file=... --tls_key_file=...]
//	go_peer client --server_port=8080 --test_case=a,b [--use_tls --ca_file=... --server_host_override=...]
//
// A server says "listening on ADDRESS" and serves until its stdin ends. A client says a line for each case: its name and
// "ok", or what went otherwise.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang/protobuf/proto"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Messages, with the fields that are used here: this protobuf reads the tags, so no code need be generated.
type (
	payload struct {
		Type int32  `protobuf:"varint,1,opt,name=type"`
		Body []byte `protobuf:"bytes,2,opt,name=body"`
	}
	boolValue struct {
		Value bool `protobuf:"varint,1,opt,name=value"`
	}
	echoStatus struct {
		Code    int32  `protobuf:"varint,1,opt,name=code"`
		Message string `protobuf:"bytes,2,opt,name=message"`
	}
	empty         struct{}
	simpleRequest struct {
		ResponseSize       int32       `protobuf:"varint,2,opt,name=response_size"`
		Payload            *payload    `protobuf:"bytes,3,opt,name=payload"`
		ResponseCompressed *boolValue  `protobuf:"bytes,6,opt,name=response_compressed"`
		ResponseStatus     *echoStatus `protobuf:"bytes,7,opt,name=response_status"`
	}
	simpleResponse struct {
		Payload *payload `protobuf:"bytes,1,opt,name=payload"`
	}
	inputRequest struct {
		Payload *payload `protobuf:"bytes,1,opt,name=payload"`
	}
	inputResponse struct {
		Sum int32 `protobuf:"varint,1,opt,name=aggregated_payload_size"`
	}
	parameters struct {
		Size       int32 `protobuf:"varint,1,opt,name=size"`
		IntervalUs int32 `protobuf:"varint,2,opt,name=interval_us"`
	}
	outputRequest struct {
		Parameters     []*parameters `protobuf:"bytes,2,rep,name=response_parameters"`
		Payload        *payload      `protobuf:"bytes,3,opt,name=payload"`
		ResponseStatus *echoStatus   `protobuf:"bytes,7,opt,name=response_status"`
	}
	outputResponse struct {
		Payload *payload `protobuf:"bytes,1,opt,name=payload"`
	}
)

func (m *payload) Reset()                { *m = payload{} }
func (m *payload) String() string        { return proto.CompactTextString(m) }
func (*payload) ProtoMessage()           {}
func (m *boolValue) Reset()              { *m = boolValue{} }
func (m *boolValue) String() string      { return proto.CompactTextString(m) }
func (*boolValue) ProtoMessage()         {}
func (m *echoStatus) Reset()             { *m = echoStatus{} }
func (m *echoStatus) String() string     { return proto.CompactTextString(m) }
func (*echoStatus) ProtoMessage()        {}
func (m *empty) Reset()                  { *m = empty{} }
func (m *empty) String() string          { return "" }
func (*empty) ProtoMessage()             {}
func (m *simpleRequest) Reset()          { *m = simpleRequest{} }
func (m *simpleRequest) String() string  { return proto.CompactTextString(m) }
func (*simpleRequest) ProtoMessage()     {}
func (m *simpleResponse) Reset()         { *m = simpleResponse{} }
func (m *simpleResponse) String() string { return proto.CompactTextString(m) }
func (*simpleResponse) ProtoMessage()    {}
func (m *inputRequest) Reset()           { *m = inputRequest{} }
func (m *inputRequest) String() string   { return proto.CompactTextString(m) }
func (*inputRequest) ProtoMessage()      {}
func (m *inputResponse) Reset()          { *m = inputResponse{} }
func (m *inputResponse) String() string  { return proto.CompactTextString(m) }
func (*inputResponse) ProtoMessage()     {}
func (m *parameters) Reset()             { *m = parameters{} }
func (m *parameters) String() string     { return proto.CompactTextString(m) }
func (*parameters) ProtoMessage()        {}
func (m *outputRequest) Reset()          { *m = outputRequest{} }
func (m *outputRequest) String() string  { return proto.CompactTextString(m) }
func (*outputRequest) ProtoMessage()     {}
func (m *outputResponse) Reset()         { *m = outputResponse{} }
func (m *outputResponse) String() string { return proto.CompactTextString(m) }
func (*outputResponse) ProtoMessage()    {}

const (
	echoInitial  = "x-grpc-test-echo-initial"
	echoTrailing = "x-grpc-test-echo-trailing-bin"
	initialValue = "test_initial_metadata_value"
	binaryValue  = "\xab\xab\xab"
	special      = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"
	service      = "/grpc.testing.TestService/"
)

var (
	flags         = map[string]string{}
	requestSizes  = []int{27182, 8, 1828, 45904}
	responseSizes = []int32{31415, 9, 2653, 58979}
)

func zeros(size int) *payload { return &payload{Body: make([]byte, size)} }

// ---------------------------------------------------------------- the server

func echo(ctx context.Context, header func(metadata.MD) error, trailer func(metadata.MD)) {
	in, _ := metadata.FromIncomingContext(ctx)
	if values := in.Get(echoInitial); len(values) > 0 {
		_ = header(metadata.MD{echoInitial: values})
	}
	if values := in.Get(echoTrailing); len(values) > 0 {
		trailer(metadata.MD{echoTrailing: values})
	}
}

func end(wanted *echoStatus) error {
	if wanted == nil || wanted.Code == 0 {
		return nil
	}
	return status.Error(codes.Code(wanted.Code), wanted.Message)
}

func unary(answer func(ctx context.Context, decode func(interface{}) error) (interface{}, error)) func(interface{},
	context.Context, func(interface{}) error, grpc.UnaryServerInterceptor) (interface{}, error) {
	return func(_ interface{}, ctx context.Context, decode func(interface{}) error,
		_ grpc.UnaryServerInterceptor) (interface{}, error) {
		echo(ctx, func(md metadata.MD) error { return grpc.SetHeader(ctx, md) },
			func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
		return answer(ctx, decode)
	}
}

func unaryCall(_ context.Context, decode func(interface{}) error) (interface{}, error) {
	request := new(simpleRequest)
	if err := decode(request); err != nil {
		return nil, err
	}
	return &simpleResponse{Payload: zeros(int(request.ResponseSize))}, end(request.ResponseStatus)
}

func output(request *outputRequest, stream grpc.ServerStream) error {
	if err := end(request.ResponseStatus); err != nil {
		return err
	}
	for _, wanted := range request.Parameters {
		time.Sleep(time.Duration(wanted.IntervalUs) * time.Microsecond)
		if err := stream.SendMsg(&outputResponse{Payload: zeros(int(wanted.Size))}); err != nil {
			return err
		}
	}
	return nil
}

func streaming(serve func(grpc.ServerStream) error) grpc.StreamHandler {
	return func(_ interface{}, stream grpc.ServerStream) error {
		echo(stream.Context(), stream.SetHeader, stream.SetTrailer)
		return serve(stream)
	}
}

func streamingOutput(stream grpc.ServerStream) error {
	request := new(outputRequest)
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	return output(request, stream)
}

func streamingInput(stream grpc.ServerStream) error {
	sum := 0
	for {
		request := new(inputRequest)
		if err := stream.RecvMsg(request); err == io.EOF {
			return stream.SendMsg(&inputResponse{Sum: int32(sum)})
		} else if err != nil {
			return err
		}
		sum += len(request.Payload.Body)
	}
}

func fullDuplex(stream grpc.ServerStream) error {
	for {
		request := new(outputRequest)
		if err := stream.RecvMsg(request); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := output(request, stream); err != nil {
			return err
		}
	}
}

func serve() error {
	options := []grpc.ServerOption{}
	if _, tls := flags["use_tls"]; tls {
		own, err := credentials.NewServerTLSFromFile(flags["tls_cert_file"], flags["tls_key_file"])
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(own))
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+flags["port"])
	if err != nil {
		return err
	}
	server := grpc.NewServer(options...)
	emptyCall := func(_ context.Context, decode func(interface{}) error) (interface{}, error) {
		return new(empty), decode(new(empty))
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "grpc.testing.TestService",
		HandlerType: (*interface{})(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "EmptyCall", Handler: unary(emptyCall)},
			{MethodName: "UnaryCall", Handler: unary(unaryCall)},
			{MethodName: "CacheableUnaryCall", Handler: unary(unaryCall)},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "StreamingOutputCall", Handler: streaming(streamingOutput), ServerStreams: true},
			{StreamName: "StreamingInputCall", Handler: streaming(streamingInput), ClientStreams: true},
			{StreamName: "FullDuplexCall", Handler: streaming(fullDuplex), ServerStreams: true, ClientStreams: true},
		},
	}, struct{}{})
	fmt.Println("listening on", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	return server.Serve(listener)
}

// ---------------------------------------------------------------- the client

var background = context.Background()

func connect() (*grpc.ClientConn, error) {
	options := []grpc.DialOption{grpc.WithInsecure()}
	if _, tls := flags["use_tls"]; tls {
		trust, err := credentials.NewClientTLSFromFile(flags["ca_file"], flags["server_host_override"])
		if err != nil {
			return nil, err
		}
		options = []grpc.DialOption{grpc.WithTransportCredentials(trust)}
	}
	host := flags["server_host"]
	if host == "" {
		host = "127.0.0.1"
	}
	return grpc.Dial(host+":"+flags["server_port"], options...)
}

func expect(holds bool, format string, arguments ...interface{}) error {
	if holds {
		return nil
	}
	return fmt.Errorf(format, arguments...)
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func expectEnd(got error, code codes.Code) error {
	return expect(status.Code(got) == code, "ended with %v, want %v", got, code)
}

func expectText(got error, text string) error {
	return first(expectEnd(got, codes.Unknown),
		expect(status.Convert(got).Message() == text, "the message is %q", status.Convert(got).Message()))
}

func large() *simpleRequest { return &simpleRequest{ResponseSize: 314159, Payload: zeros(271828)} }

func largeUnary(conn *grpc.ClientConn, options ...grpc.CallOption) error {
	response := new(simpleResponse)
	if err := conn.Invoke(background, service+"UnaryCall", large(), response, options...); err != nil {
		return err
	}
	return expect(bytes.Equal(response.Payload.Body, make([]byte, 314159)), "a wrong payload")
}

var (
	bidi = &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	in   = &grpc.StreamDesc{ClientStreams: true}
	out  = &grpc.StreamDesc{ServerStreams: true}
)

func question(requestSize int, responseSizes ...int32) *outputRequest {
	request := &outputRequest{Payload: zeros(requestSize)}
	for _, size := range responseSizes {
		request.Parameters = append(request.Parameters, &parameters{Size: size})
	}
	return request
}

func duplex(ctx context.Context, conn *grpc.ClientConn) (grpc.ClientStream, error) {
	return conn.NewStream(ctx, bidi, service+"FullDuplexCall")
}

func expectAnswer(stream grpc.ClientStream, size int32) error {
	answer := new(outputResponse)
	if err := stream.RecvMsg(answer); err != nil {
		return err
	}
	return expect(len(answer.Payload.Body) == int(size), "an answer of %d bytes", len(answer.Payload.Body))
}

func expectNoMore(stream grpc.ClientStream) error {
	err := stream.RecvMsg(new(outputResponse))
	return expect(err == io.EOF, "instead of the end: %v", err)
}

func clientStreaming(conn *grpc.ClientConn, options ...grpc.CallOption) error {
	stream, err := conn.NewStream(background, in, service+"StreamingInputCall", options...)
	if err != nil {
		return err
	}
	for _, size := range requestSizes {
		if err := stream.SendMsg(&inputRequest{Payload: zeros(size)}); err != nil {
			return err
		}
	}
	response := new(inputResponse)
	return first(stream.CloseSend(), stream.RecvMsg(response), expect(response.Sum == 74922, "the sum is %d", response.Sum))
}

var cases = map[string]func(conn *grpc.ClientConn) error{
	"empty_unary": func(conn *grpc.ClientConn) error {
		return conn.Invoke(background, service+"EmptyCall", new(empty), new(empty))
	},
	"large_unary":      func(conn *grpc.ClientConn) error { return largeUnary(conn) },
	"client_streaming": func(conn *grpc.ClientConn) error { return clientStreaming(conn) },
	// Not of the official list: what Go can say of packing is that it packs.
	"large_unary_packed":      func(conn *grpc.ClientConn) error { return largeUnary(conn, grpc.UseCompressor(gzip.Name)) },
	"client_streaming_packed": func(conn *grpc.ClientConn) error { return clientStreaming(conn, grpc.UseCompressor(gzip.Name)) },
	"server_streaming": func(conn *grpc.ClientConn) error {
		stream, err := conn.NewStream(background, out, service+"StreamingOutputCall")
		if err != nil {
			return err
		}
		if err := first(stream.SendMsg(question(0, responseSizes...)), stream.CloseSend()); err != nil {
			return err
		}
		for _, size := range responseSizes {
			if err := expectAnswer(stream, size); err != nil {
				return err
			}
		}
		return expectNoMore(stream)
	},
	"ping_pong": func(conn *grpc.ClientConn) error {
		stream, err := duplex(background, conn)
		if err != nil {
			return err
		}
		for i, size := range responseSizes {
			if err := first(stream.SendMsg(question(requestSizes[i], size)), expectAnswer(stream, size)); err != nil {
				return err
			}
		}
		return first(stream.CloseSend(), expectNoMore(stream))
	},
	"empty_stream": func(conn *grpc.ClientConn) error {
		stream, err := duplex(background, conn)
		if err != nil {
			return err
		}
		return first(stream.CloseSend(), expectNoMore(stream))
	},
	"custom_metadata": func(conn *grpc.ClientConn) error {
		ctx := metadata.AppendToOutgoingContext(background, echoInitial, initialValue, echoTrailing, binaryValue)
		came := func(header, trailer metadata.MD) error {
			return expect(fmt.Sprint(header.Get(echoInitial), trailer.Get(echoTrailing)) ==
				fmt.Sprint([]string{initialValue}, []string{binaryValue}), "came back: %v, %v", header, trailer)
		}
		var header, trailer metadata.MD
		err := conn.Invoke(ctx, service+"UnaryCall", large(), new(simpleResponse), grpc.Header(&header),
			grpc.Trailer(&trailer))
		if err := first(err, came(header, trailer)); err != nil {
			return err
		}
		stream, err := duplex(ctx, conn)
		if err != nil {
			return err
		}
		err = first(stream.SendMsg(question(271828, 314159)), stream.CloseSend(), expectAnswer(stream, 314159),
			expectNoMore(stream))
		if err != nil {
			return err
		}
		header, err = stream.Header()
		return first(err, came(header, stream.Trailer()))
	},
	"status_code_and_message": func(conn *grpc.ClientConn) error {
		wanted := &echoStatus{Code: 2, Message: "test status message"}
		err := conn.Invoke(background, service+"UnaryCall", &simpleRequest{ResponseStatus: wanted}, new(simpleResponse))
		if err := expectText(err, wanted.Message); err != nil {
			return err
		}
		stream, err := duplex(background, conn)
		if err != nil {
			return err
		}
		err = first(stream.SendMsg(&outputRequest{ResponseStatus: wanted}), stream.CloseSend())
		return first(err, expectText(stream.RecvMsg(new(outputResponse)), wanted.Message))
	},
	"special_status_message": func(conn *grpc.ClientConn) error {
		request := &simpleRequest{ResponseStatus: &echoStatus{Code: 2, Message: special}}
		return expectText(conn.Invoke(background, service+"UnaryCall", request, new(simpleResponse)), special)
	},
	"unimplemented_method": func(conn *grpc.ClientConn) error {
		return expectEnd(conn.Invoke(background, service+"UnimplementedCall", new(empty), new(empty)), codes.Unimplemented)
	},
	"unimplemented_service": func(conn *grpc.ClientConn) error {
		err := conn.Invoke(background, "/grpc.testing.UnimplementedService/UnimplementedCall", new(empty), new(empty))
		return expectEnd(err, codes.Unimplemented)
	},
	"cancel_after_begin": func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(background)
		stream, err := conn.NewStream(ctx, in, service+"StreamingInputCall")
		if err != nil {
			return err
		}
		cancel()
		return expectEnd(stream.RecvMsg(new(inputResponse)), codes.Canceled)
	},
	"cancel_after_first_response": func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		stream, err := duplex(ctx, conn)
		if err != nil {
			return err
		}
		if err := first(stream.SendMsg(question(27182, 31415)), expectAnswer(stream, 31415)); err != nil {
			return err
		}
		cancel()
		return expectEnd(stream.RecvMsg(new(outputResponse)), codes.Canceled)
	},
	"timeout_on_sleeping_server": func(conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(background, time.Millisecond)
		defer cancel()
		stream, err := duplex(ctx, conn)
		if err == nil {
			_ = stream.SendMsg(question(27182))
			err = stream.RecvMsg(new(outputResponse))
		}
		return expectEnd(err, codes.DeadlineExceeded)
	},
	"concurrent_large_unary": func(conn *grpc.ClientConn) error {
		var group sync.WaitGroup
		errs := make([]error, 1000)
		for i := range errs {
			group.Add(1)
			go func(i int) {
				defer group.Done()
				errs[i] = largeUnary(conn)
			}(i)
		}
		group.Wait()
		return first(errs...)
	},
	"rpc_soak": func(conn *grpc.ClientConn) error {
		for i := 0; i < 10; i++ {
			if err := largeUnary(conn); err != nil {
				return err
			}
		}
		return nil
	},
	"channel_soak": func(*grpc.ClientConn) error {
		for i := 0; i < 10; i++ {
			conn, err := connect()
			if err != nil {
				return err
			}
			err = largeUnary(conn)
			_ = conn.Close()
			if err != nil {
				return err
			}
		}
		return nil
	},
}

func runCases() error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	var failed error
	for _, name := range strings.Split(flags["test_case"], ",") {
		outcome := "ok"
		run, found := cases[name]
		if !found {
			outcome = "no such case"
		} else if err := run(conn); err != nil {
			outcome = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println(name, outcome)
		if outcome != "ok" {
			failed = fmt.Errorf("cases failed")
		}
	}
	return failed
}

func main() {
	for _, argument := range os.Args[2:] {
		pair := strings.SplitN(strings.TrimPrefix(argument, "--"), "=", 2)
		flags[pair[0]] = strings.Join(pair[1:], "")
	}
	run := runCases
	if os.Args[1] == "server" {
		run = serve
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
