module dockgate/tests/e2e/old_docker

go 1.17

require (
	github.com/coreos/go-systemd v0.0.0-20191104093116-d3cd4ed1dbcf
	github.com/docker/docker v1.3.3
	github.com/docker/libcontainer v1.2.0
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7
	github.com/gorilla/mux v1.8.0
	github.com/tchap/go-patricia v1.0.1
	golang.org/x/net v0.12.0
)
