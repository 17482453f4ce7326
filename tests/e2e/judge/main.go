// Judge is a TLS peer written with Go's standard library: a second opinion on certificates and handshakes.
//
// "judge connect" opens one mutual TLS connection, verifies the server's chain and SPIFFE ID, sends standard input and
// prints one JSON object with what was negotiated and answered. "judge serve" answers every request on a mutual TLS port
// with 200 and a line naming the caller, until its standard input closes.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

type verdict struct {
	Version  string `json:"version"`
	Group    string `json:"group"`
	ALPN     string `json:"alpn"`
	Peer     string `json:"peer"`
	Resumed  bool   `json:"resumed"`
	Response string `json:"response"`
	Error    string `json:"error,omitempty"`
}

type options struct {
	address, certificate, key, roots, expected, alpn, groups, maxVersion string

	twice bool
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: judge connect|serve -address HOST:PORT [-certificate F -key F] -roots F"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.address, "address", "", "host:port")
	flags.StringVar(&o.certificate, "certificate", "", "PEM chain, leaf first; none: no client certificate")
	flags.StringVar(&o.key, "key", "", "PEM key")
	flags.StringVar(&o.roots, "roots", "", "PEM trust bundle")
	flags.StringVar(&o.expected, "expect", "", "the SPIFFE ID that the server must have")
	flags.StringVar(&o.alpn, "alpn", "", "protocols to offer, with commas")
	flags.StringVar(&o.groups, "groups", "", "x25519 to offer that group only")
	flags.StringVar(&o.maxVersion, "max-version", "1.3", "1.2 or 1.3")
	flags.BoolVar(&o.twice, "twice", false, "connect again, offering to resume; report that connection")
	_ = flags.Parse(os.Args[2:])
	if os.Args[1] == "serve" {
		fail(serve(o))
		return
	}
	result := verdict{}
	if err := judge(o, &result); err != nil {
		result.Error = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(result)
}

func judge(o options, result *verdict) error {
	config, err := configuration(o)
	if err != nil {
		return err
	}
	request, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if o.twice {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		if err := connect(o, config, request, &verdict{}); err != nil {
			return err
		}
	}
	return connect(o, config, request, result)
}

func connect(o options, config *tls.Config, request []byte, result *verdict) error {
	// A SPIFFE ID is not a host name: Go's own check is replaced, not dropped.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return verifyServer(state, config.RootCAs, o.expected)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", o.address, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(10 * time.Second))
	state := connection.ConnectionState()
	result.Version = tls.VersionName(state.Version)
	result.Group = state.CurveID.String()
	result.ALPN = state.NegotiatedProtocol
	result.Resumed = state.DidResume
	if len(state.PeerCertificates[0].URIs) > 0 {
		result.Peer = state.PeerCertificates[0].URIs[0].String()
	}
	if len(request) == 0 {
		return nil
	}
	if _, err := connection.Write(request); err != nil {
		return err
	}
	answer, err := io.ReadAll(io.LimitReader(connection, 1<<20))
	result.Response = string(answer)
	if len(answer) > 0 {
		return nil
	}
	return err
}

func configuration(o options) (*tls.Config, error) {
	bundle, err := os.ReadFile(o.roots)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		return nil, fmt.Errorf("%s: no certificate in it", o.roots)
	}
	config := &tls.Config{RootCAs: roots, ClientCAs: roots, MinVersion: tls.VersionTLS12}
	if o.maxVersion == "1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	if o.groups == "x25519" {
		config.CurvePreferences = []tls.CurveID{tls.X25519}
	}
	if o.alpn != "" {
		config.NextProtos = strings.Split(o.alpn, ",")
	}
	if o.certificate != "" {
		pair, err := loadPair(o.certificate, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// loadPair does not ask whether the key is the certificate's: that is the server's to find out.
func loadPair(certificate, key string) (tls.Certificate, error) {
	var pair tls.Certificate
	chain, err := os.ReadFile(certificate)
	if err != nil {
		return pair, err
	}
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		pair.Certificate = append(pair.Certificate, block.Bytes)
	}
	text, err := os.ReadFile(key)
	if err != nil {
		return pair, err
	}
	block, _ := pem.Decode(text)
	if block == nil || len(pair.Certificate) == 0 {
		return pair, fmt.Errorf("%s or %s: not PEM", certificate, key)
	}
	pair.PrivateKey, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	return pair, err
}

func verifyServer(state tls.ConnectionState, roots *x509.CertPool, expected string) error {
	intermediates := x509.NewCertPool()
	for _, certificate := range state.PeerCertificates[1:] {
		intermediates.AddCert(certificate)
	}
	leaf := state.PeerCertificates[0]
	verify := x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if _, err := leaf.Verify(verify); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 {
		return fmt.Errorf("%d URI names in the server's certificate", len(leaf.URIs))
	}
	if expected != "" && leaf.URIs[0].String() != expected {
		return fmt.Errorf("the server is %s", leaf.URIs[0])
	}
	return nil
}

func serve(o options) error {
	config, err := configuration(o)
	if err != nil {
		return err
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.NextProtos = []string{"http/1.1"}
	listener, err := tls.Listen("tcp", o.address, config)
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server := &http.Server{Handler: http.HandlerFunc(answer), ReadHeaderTimeout: 5 * time.Second}
	return server.Serve(listener)
}

func answer(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "judge: caller %s\n", r.TLS.PeerCertificates[0].URIs[0])
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		os.Exit(2)
	}
}
