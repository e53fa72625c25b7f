#!/usr/bin/env bash
# Builds docker 1.3.3, 1.5.0, 1.6.2 and 1.9.1 as tests/e2e/old_docker.sh runs them: build.sh DIRECTORY makes DIRECTORY/docker-1.3
# and so on from their own sources, the command line and the daemon in one; of 1.9 what both do with images (1.9/main.go).
# What is changed in those: imports, a call and a constant whose homes are gone, docker/daemon.go (see daemon.go here), the file
# that docker's own build writes with its version, and what Go 1.4 would have done by itself: how the end of a file is read
# (tar.go), and in their v1 calls the name that a ping says (go14.go) and no TLS 1.3.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0 GO111MODULE=on GOWORK=off

main() {
  local out=$1 found
  mkdir -p "$out"
  out=$(realpath "$out")
  found=$(cd "$here" && cat build.sh ./*.go 1.*/* | sha256sum)
  [[ $(cat "$out/complete" 2>/dev/null) != "$found" ]] || return 0
  build 1.3 1.3.3 d344625 "$out"
  build 1.5 1.5.0 a8a31ef "$out"
  build 1.6 1.6.2 7c8fca2 "$out"
  build 1.9 1.9.1 a34a1d5 "$out"
  printf '%s\n' "$found" >"$out/complete"
}

# build SERIES VERSION COMMIT DIRECTORY
build() {
  local recipe=$here/$1 tree=$4/source-$1 version=github.com/docker/docker/dockerversion sources
  sources=$(sources "$recipe")
  rm -rf "$tree"
  cp -r "$sources" "$tree"
  chmod -R u+w "$tree"
  cd "$tree"
  cp "$recipe/go.mod" "$recipe/go.sum" .
  go mod edit -module github.com/docker/docker -droprequire github.com/docker/docker
  find . -name '*.go' -exec sed -i \
    -e 's#"github.com/docker/docker/vendor/src/code.google.com/p/go/src/pkg/archive/tar"#"github.com/docker/docker/pkg/oldtar"#' \
    -e 's#"github.com/docker/docker/autogen/dockerversion"#"github.com/docker/docker/dockerversion"#' \
    -e 's#v2.ErrorCodeUnauthorized#errcode.ErrorCodeUnauthorized#' \
    -e 's#"code.google.com/p/go.net/websocket"#"golang.org/x/net/websocket"#' \
    -e 's/activation.Listeners(false)/activation.Listeners()/' {} +
  sed -i 's#"archive/tar"#"github.com/docker/docker/pkg/oldtar"#' pkg/tarsum/*.go
  sed -i -e 's/client\.Do(req)/client.Do(asGo14(req))/' -e 's/MinVersion: .*/&\n\t\tMaxVersion: tls.VersionTLS12,/' registry/registry.go
  [[ -d dockerversion ]] || write_version
  mkdir pkg/oldtar
  cp "$here/go14.go" registry/
  cp "$here/tar.go" pkg/oldtar/
  if [[ -e $recipe/main.go ]]; then
    rm docker/*.go
    cp "$recipe/main.go" docker/
  else
    cp "$here/daemon.go" "$here/registry.go" docker/
    [[ ! -e $recipe/registry.go ]] || cp "$recipe/registry.go" docker/
  fi
  go build -tags 'daemon noresumabledigest exclude_graphdriver_zfs' -ldflags "-X $version.VERSION=$2 -X $version.GITCOMMIT=$3" -o "$4/docker-$1" ./docker
  rm -rf "$tree"
}

write_version() {
  mkdir dockerversion
  printf 'package dockerversion\n\nvar VERSION, GITCOMMIT, BUILDTIME, IAMSTATIC, INITSHA1, INITPATH string\n' >dockerversion/dockerversion.go
}

# The sources of docker that go.mod names, as go.sum has their sum.
sources() {
  cd "$1"
  go mod download github.com/docker/docker
  go list -m -f '{{.Dir}}' github.com/docker/docker
}

main "$@"
