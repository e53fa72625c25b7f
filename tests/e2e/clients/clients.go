//go:build clients

// Package clients pins the registry clients that Debian does not package.
package clients

import (
	_ "github.com/google/go-containerregistry/cmd/crane"
	_ "github.com/regclient/regclient/cmd/regctl"
	_ "github.com/regclient/regclient/cmd/regsync"
	_ "oras.land/oras/cmd/oras"
)
