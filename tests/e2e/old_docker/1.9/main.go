// docker 1.9 without a daemon: what its command line asks the daemon for is done at once, with the images and the logins in $HOME.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/docker/cliconfig"
	"github.com/docker/docker/daemon/events"
	"github.com/docker/docker/daemon/graphdriver"
	_ "github.com/docker/docker/daemon/graphdriver/vfs"
	"github.com/docker/docker/graph"
	"github.com/docker/docker/opts"
	"github.com/docker/docker/pkg/parsers"
	"github.com/docker/docker/pkg/reexec"
	"github.com/docker/docker/registry"
	"github.com/docker/libtrust"
)

var (
	home    = os.Getenv("HOME")
	service = registry.NewService(&registry.Options{Mirrors: opts.NewListOpts(nil), InsecureRegistries: opts.NewListOpts(nil)})
)

func main() {
	if reexec.Init() {
		return
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	login := cliconfig.AuthConfig{}
	flags.StringVar(&login.Username, "username", "", "")
	flags.StringVar(&login.Password, "password", "", "")
	flags.StringVar(&login.Email, "email", "", "")
	for _, ignored := range []string{"no-trunc", "quiet"} {
		flags.Bool(ignored, false, "")
	}
	must(flags.Parse(os.Args[2:]))
	do(os.Args[1], flags.Arg(0), login)
}

func do(command, argument string, login cliconfig.AuthConfig) {
	store := open(filepath.Join(home, "images"))
	name, tag := parsers.ParseRepositoryTag(argument)
	switch command {
	case "login":
		login.ServerAddress = argument
		said, err := service.Auth(&login)
		must(err)
		logins := logins()
		logins[argument] = login
		file, err := os.Create(loginsFile())
		must(err)
		must(json.NewEncoder(file).Encode(logins))
		fmt.Println(said)
	case "load":
		must(store.Load(os.Stdin, os.Stderr))
	case "push":
		must(store.Push(name, &graph.ImagePushConfig{AuthConfig: loginAt(name), Tag: tag, OutStream: os.Stderr}))
	case "pull":
		must(store.Pull(name, tag, &graph.ImagePullConfig{AuthConfig: loginAt(name), OutStream: os.Stderr}))
	case "images":
		repository, err := store.Get(name)
		must(err)
		for _, id := range repository {
			fmt.Println(id)
		}
	case "save":
		must(store.ImageExport([]string{argument}, os.Stdout))
	default:
		must(fmt.Errorf("%s: not a command", command))
	}
}

func open(root string) *graph.TagStore {
	must(os.MkdirAll(root, 0o700))
	driver, err := graphdriver.GetDriver("vfs", root, nil, nil, nil)
	must(err)
	images, err := graph.NewGraph(filepath.Join(root, "graph"), driver, nil, nil)
	must(err)
	key, err := libtrust.GenerateECP256PrivateKey()
	must(err)
	config := &graph.TagStoreConfig{Graph: images, Key: key, Registry: service, Events: events.New()}
	store, err := graph.NewTagStore(filepath.Join(root, "repositories"), config)
	must(err)
	return store
}

func loginsFile() string { return filepath.Join(home, "logins.json") }

func logins() map[string]cliconfig.AuthConfig {
	all := map[string]cliconfig.AuthConfig{}
	file, err := os.Open(loginsFile())
	if os.IsNotExist(err) {
		return all
	}
	must(err)
	must(json.NewDecoder(file).Decode(&all))
	return all
}

func loginAt(name string) *cliconfig.AuthConfig {
	login := logins()[strings.SplitN(name, "/", 2)[0]]
	return &login
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
