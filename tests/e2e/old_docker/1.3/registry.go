//go:build daemon
// +build daemon

package main

import (
	"github.com/docker/docker/engine"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/opts"
	"github.com/docker/docker/registry"
)

var insecureRegistries []string

func init() {
	opts.ListVar(&insecureRegistries, []string{"-insecure-registry"}, "Enable insecure communication with specified registries")
}

func installRegistry(eng *engine.Engine) error {
	return registry.NewService(insecureRegistries).Install(eng)
}

func newTagStore(path string, images *graph.Graph) (*graph.TagStore, error) {
	return graph.NewTagStore(path, images, nil, insecureRegistries)
}
