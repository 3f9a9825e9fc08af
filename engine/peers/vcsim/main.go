// Command vcsim is a vCenter to test against: govmomi's simulator, with what it lacks of changed-block tracking.
//
// The simulator has sessions, inventory, properties, tasks, snapshots and files below /folder/. This program adds
// contents to the disks, delta disks, change ids and QueryChangedDiskAreas, and refuses files to those without a session.
// Not emulated: reverting to a snapshot, quiescing, consolidation that takes time, privileges, and QueryChangedDiskAreas
// without a snapshot.
//
// It listens on a port of 127.0.0.1 that was free, with TLS and a certificate of its own. The first line on standard
// output says where, as JSON; then each line on standard input is a command, as JSON, which is answered with one line
// (see control.go). It ends when standard input ends, so it outlives nobody who holds the other end.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
)

// ready is the first line on standard output.
type ready struct {
	Address     string    `json:"address"`     // host and port
	User        string    `json:"user"`        // for Login
	Password    string    `json:"password"`    // for Login
	Thumbprint  string    `json:"thumbprint"`  // SHA-256 of the certificate, as openssl prints it
	Certificate string    `json:"certificate"` // PEM, its own issuer
	Machines    []machine `json:"machines"`
}

// sizes is a flag -machine NAME=BYTES,BYTES that can be given several times.
type sizes []wanted

// wanted is a machine to make, with the bytes of its disks.
type wanted struct {
	name  string
	disks []int64
}

func (s *sizes) String() string { return fmt.Sprint(*s) }

func (s *sizes) Set(text string) error {
	name, list, found := strings.Cut(text, "=")
	if !found || name == "" {
		return errors.New("want NAME=BYTES,BYTES")
	}
	machine := wanted{name: name}
	for _, size := range strings.Split(list, ",") {
		bytes, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return err
		}
		if bytes <= 0 || bytes%1024 != 0 {
			return errors.New("the size of a disk is a multiple of 1024")
		}
		machine.disks = append(machine.disks, bytes)
	}
	*s = append(*s, machine)
	return nil
}

func main() {
	// The simulator logs each fault that it answers with.
	log.SetOutput(io.Discard)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vcsim:", err)
		os.Exit(1)
	}
}

func run() error {
	var machines sizes
	flag.Var(&machines, "machine", "a virtual machine `NAME=BYTES,BYTES` with disks of these sizes (several times)")
	page := flag.Int("page", 2000, "the most `extents` in an answer of QueryChangedDiskAreas")
	granularity := flag.Int64("granularity", 64<<10, "the `bytes` in whose multiples changes are tracked")
	seed := flag.Uint64("seed", 1, "what the first contents of the disks are made from")
	flag.Parse()

	model := simulator.VPX()
	model.Machine, model.Cluster = 0, 0
	model.ServiceContent.About.Version = "8.0.3"
	model.ServiceContent.About.ApiVersion = "8.0.3.0"
	if err := model.Create(); err != nil {
		return err
	}
	defer model.Remove()

	user := url.UserPassword("administrator@vsphere.local", "correct horse battery staple & <co>")
	certificate, err := newCertificate()
	if err != nil {
		return err
	}
	service := model.Service
	service.Listen = &url.URL{Host: "127.0.0.1:0", User: user}
	service.TLS = &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12}
	// It ends with the process: closing it would wait for requests.
	server := service.NewServer()

	center := newCenter(model, user.Username(), *page, *granularity)
	service.Context.Map.Handler = center.override
	// Nobody knows the address yet.
	server.Config.Handler = center.guardFiles(server.Config.Handler)
	for _, machine := range machines {
		if err := center.createMachine(machine, seed); err != nil {
			return fmt.Errorf("machine %s: %w", machine.name, err)
		}
	}

	made, err := center.list()
	if err != nil {
		return err
	}
	password, _ := user.Password()
	digest := sha256.Sum256(certificate.Certificate[0])
	answers := json.NewEncoder(os.Stdout)
	err = answers.Encode(ready{
		Address:     server.URL.Host,
		User:        user.Username(),
		Password:    password,
		Thumbprint:  strings.ReplaceAll(fmt.Sprintf("% X", digest), " ", ":"),
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})),
		Machines:    made,
	})
	if err != nil {
		return err
	}
	return obey(center, os.Stdin, answers)
}

// obey answers commands until there are no more.
func obey(center *center, commands io.Reader, answers *json.Encoder) error {
	lines := bufio.NewScanner(commands)
	for lines.Scan() {
		result, err := center.command(lines.Bytes())
		answer := struct {
			Error  string `json:"error,omitempty"`
			Result any    `json:"result"`
		}{Result: result}
		if err != nil {
			answer.Error = err.Error()
		}
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}

// newCertificate makes one for 127.0.0.1 that signs itself and, not being an authority, nothing else.
func newCertificate() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "vcsim"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// guardFiles refuses files to those without a session.
func (c *center) guardFiles(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/folder/") {
			cookie, err := r.Cookie(soap.SessionCookieName)
			if err != nil || !c.hasSession(cookie.Value) {
				w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
				http.Error(w, "no session", http.StatusUnauthorized)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
