// Package conformance pins the OCI distribution conformance suite and what its
// tests import, so that `go test -c` builds the suite's own test binary from
// go.mod and go.sum alone.
package conformance

import (
	_ "github.com/onsi/gomega"
	_ "github.com/opencontainers/distribution-spec/conformance"
	_ "github.com/opencontainers/go-digest"
)
