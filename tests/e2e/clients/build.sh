#!/usr/bin/env bash
# Builds one of the clients that take long, from its own sources: build.sh CLIENT DIRECTORY. What is built stays until its recipe,
# which is the folder of its name here, changes. Versions are pinned there, with the sums of all that they bring along.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

main() {
  local recipe=$here/$1 out=$2 found
  mkdir -p "$out"
  out=$(realpath "$out")
  found=$(cd "$recipe" && find . -type f -print0 | sort -z | xargs -0 cat "$here/build.sh" | sha256sum)
  [[ $(cat "$out/complete" 2>/dev/null) != "$found" ]] || return 0
  rm -f "$out/complete"
  cd "$recipe"
  if [[ -e go.mod ]]; then
    with_go "$out"
  elif [[ -e Cargo.toml ]]; then
    CARGO_TARGET_DIR=$out/target cargo build --quiet --locked
    cp "$out/target/debug/$1" "$out/"
  else
    with_maven "$out"
  fi
  printf '%s\n' "$found" >"$out/complete"
}

# The programs that go.mod names as tools, and one of our own where there is a main.go.
with_go() {
  local packages=()
  export GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0 GO111MODULE=on GOWORK=off
  mapfile -t packages < <(sed -n 's/^tool \([^(]\)/\1/p; /^tool (/,/^)/s/^\t//p' go.mod)
  [[ ! -e main.go ]] || packages+=(.)
  # trivy is written for the next encoding/json, which Go 1.26 has as an experiment.
  [[ ${PWD##*/} != trivy ]] || export GOEXPERIMENT=jsonv2
  if [[ ${PWD##*/} == flux ]]; then
    flux_from_its_tree "$1"
  else
    go build -ldflags '-s -w' -o "$1/" "${packages[@]}"
  fi
}

# flux embeds what `flux install` applies to a cluster, which its own build makes before and its module lacks. Nothing of that is
# needed to push and pull: a file that says nothing takes its place, in a copy that is built as the module is pinned here.
flux_from_its_tree() {
  local sources
  go mod download github.com/fluxcd/flux2/v2
  sources=$(go list -m -f '{{.Dir}}' github.com/fluxcd/flux2/v2)
  rm -rf "$1/source"
  cp -r "$sources" "$1/source"
  chmod -R u+w "$1/source"
  mkdir -p "$1/source/cmd/flux/manifests"
  printf '# nothing\n' >"$1/source/cmd/flux/manifests/none.yaml"
  (cd "$1/source" && go build -ldflags '-s -w' -o "$1/" ./cmd/flux)
  rm -rf "$1/source"
}

# Java is compiled against what pom.xml names.
with_maven() {
  # shellcheck source=deploy/packages.sh
  source "$here/../../../deploy/packages.sh"
  if ! command -v mvn >/dev/null || ! command -v javac >/dev/null; then
    need_packages 'For Jib' default-jdk-headless maven
  fi
  rm -rf "${1:?}"/{lib,classes}
  mvn --quiet --batch-mode --file pom.xml -DoutputDirectory="$1/lib" dependency:copy-dependencies
  javac -d "$1/classes" -cp "$1/lib/*" ./*.java
}

main "$@"
