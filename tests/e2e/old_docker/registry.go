//go:build daemon
// +build daemon

package main

import (
	"path/filepath"

	"github.com/docker/docker/api"
	"github.com/docker/docker/engine"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/registry"
)

var registryOptions = &registry.Options{}

func init() { registryOptions.InstallFlags() }

func installRegistry(eng *engine.Engine) error {
	return registry.NewService(registryOptions).Install(eng)
}

func newTagStore(path string, images *graph.Graph) (*graph.TagStore, error) {
	key, err := api.LoadOrCreateTrustKey(filepath.Join(*flRoot, "key.json"))
	must(err)
	return graph.NewTagStore(path, images, key)
}
