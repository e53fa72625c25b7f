//go:build daemon
// +build daemon

// docker/daemon.go of the dockers that build.sh builds: their engine with its API, its images and its registry client, and without
// what runs containers, which neither builds nor runs today.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/docker/docker/api/server"
	"github.com/docker/docker/daemon/graphdriver"
	_ "github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/dockerversion"
	"github.com/docker/docker/engine"
	"github.com/docker/docker/events"
	"github.com/docker/docker/graph"
	flag "github.com/docker/docker/pkg/mflag"
	"github.com/docker/docker/pkg/signal"
	"github.com/docker/docker/trust"
)

const CanDaemon = true

var flRoot = flag.String([]string{"g", "-graph"}, "/var/lib/docker", "Path to use as the root of the Docker runtime")

func mainDaemon() {
	eng := engine.New()
	signal.Trap(eng.Shutdown)
	must(events.New().Install(eng))
	must(eng.Register("serveapi", server.ServeApi))
	must(installRegistry(eng))
	must(installImages(eng))
	must(installTrust(eng))

	job := eng.Job("serveapi", flHosts...)
	job.SetenvBool("Logging", true)
	job.Setenv("Version", dockerversion.VERSION)
	must(job.Run())
}

func installImages(eng *engine.Engine) error {
	must(os.MkdirAll(*flRoot, 0700))
	driver, err := graphdriver.GetDriver("vfs", *flRoot, nil)
	must(err)
	images, err := graph.NewGraph(filepath.Join(*flRoot, "graph"), driver)
	must(err)
	tags, err := newTagStore(filepath.Join(*flRoot, "repositories-vfs"), images)
	must(err)
	return tags.Install(eng)
}

// Whom images are from is looked up in it, of which there is none.
func installTrust(eng *engine.Engine) error {
	directory := filepath.Join(*flRoot, "trust")
	must(os.MkdirAll(directory, 0700))
	store, err := trust.NewTrustStore(directory)
	must(err)
	return store.Install(eng)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
