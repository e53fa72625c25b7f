#!/usr/bin/env bash
# Installs what the tests need. What is there already stays as it is.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

cargo_deny=0.20.2
cargo_machete=0.9.2
go_for_conformance=1.24
go_toolchain=1.24.13

main() {
  "$root/deploy/install-build-needs.sh"
  need_packages 'For the tests' \
    apache2-utils buildah busybox-static ca-certificates containerd curl docker-registry docker.io e2fsprogs iproute2 iptables jq \
    mount openssl podman procps python3-venv runc shellcheck skopeo strace util-linux
  need_node
  need_docker_client
  need_cpp_compiler
  need_go
  need_rust_components
  need_cargo_tools
  "$root/tests/v1/install.sh" "$root/.test/v1"
}

# From Debian 13 on the client is a package of its own.
need_docker_client() {
  command -v docker >/dev/null || need_packages 'For the tests' docker-cli
}

# libFuzzer is made of it.
need_cpp_compiler() {
  command -v c++ >/dev/null || need_packages 'For the tests' g++
}

# Debian 12's 1.19 is enough for crane and regctl as pinned, and for old docker. The conformance suite needs 1.24: where the
# machine's is older, a newer one is put into .test/go, where tests/conformance/run.sh looks for it.
need_go() {
  command -v go >/dev/null || need_packages 'For the tests' golang-go
  local found
  found=$(go env GOVERSION)
  if ! newer_or_same "${found#go}" 1.19; then
    printf 'Go %s is too old: 1.19 or newer is needed\n' "${found#go}" >&2
    return 1
  fi
  if newer_or_same "${found#go}" "$go_for_conformance"; then
    remove_go "$root/.test/go"
  else
    need_go_toolchain
  fi
}

newer_or_same() { [[ $(printf '%s\n' "$2" "$1" | sort --version-sort | head -n 1) == "$2" ]]; }

# A Go toolchain is published as a module, whose checksum the go command looks up before it unpacks it. A go command from 1.21 on
# could run it from where it was unpacked; one that is older does not know what is special about it: in a module no file can be
# executed, and no other go.mod can be in it.
need_go_toolchain() {
  local go=$root/.test/go new=$root/.test/go-new answer unpacked
  [[ -x $go/bin/go && $(head -n 1 "$go/VERSION") == "go$go_toolchain" ]] && return
  printf 'For the conformance suite, putting Go %s into .test/go\n' "$go_toolchain"
  remove_go "$new"
  mkdir -p "$new"
  answer=$(cd "$new" && GOMODCACHE=$new GOFLAGS='' GO111MODULE=on GOTOOLCHAIN=local \
    go mod download -json "golang.org/toolchain@v0.0.1-go$go_toolchain.$(go env GOHOSTOS)-$(go env GOHOSTARCH)") ||
    { printf 'Go %s cannot be downloaded: %s\n' "$go_toolchain" "$(jq -r '.Error // empty' <<<"$answer")" >&2; return 1; }
  unpacked=$(jq -r .Dir <<<"$answer")
  chmod -R u+w "$new"
  chmod -R a+x "$unpacked/bin" "$unpacked/pkg/tool"
  find "$unpacked/src" -name _go.mod -execdir mv {} go.mod \;
  remove_go "$go"
  mv "$unpacked" "$go"
  remove_go "$new"
  "$go/bin/go" version
}

# Nobody may write to what the go command unpacked, so a plain rm does not remove it.
remove_go() {
  [[ ! -e $1 ]] || chmod -R u+w "$1"
  rm -rf "$1"
}

# For the v1 client of npm, of which any Node.js will do.
need_node() {
  command -v npm >/dev/null || need_packages 'For the tests' nodejs npm
}

need_rust_components() {
  local component
  for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 && continue
    printf 'cargo %s is not there. With rustup: rustup component add rustfmt clippy\n' "$component" >&2
    return 1
  done
}

# Unoptimised: it then builds in a minute and still checks in seconds.
need_cargo_tools() {
  cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked --debug "cargo-deny@$cargo_deny"
  cargo machete --version >/dev/null 2>&1 || cargo install --quiet --locked --debug "cargo-machete@$cargo_machete"
}

main
