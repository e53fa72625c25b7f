module dockgate/tests/e2e/old_docker

go 1.17

require (
	github.com/Sirupsen/logrus v0.8.7
	github.com/docker/distribution v2.1.1+incompatible
	github.com/docker/docker v1.9.1
	github.com/docker/libtrust v0.0.0-20160708172513-aabc10ec26b7
	github.com/gorilla/mux v1.8.0
	github.com/opencontainers/runc v0.0.9
	github.com/tchap/go-patricia v2.3.0+incompatible
	github.com/vbatts/tar-split v0.11.2
	golang.org/x/net v0.12.0
)
