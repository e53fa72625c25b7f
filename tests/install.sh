#!/usr/bin/env bash
# Installs what the tests need. What is there already stays as it is.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

cargo_deny=0.20.2

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
  need_cargo_deny
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

# Debian 12's 1.19 is enough for the conformance suite, for crane and regctl as pinned, and for old docker.
need_go() {
  command -v go >/dev/null || need_packages 'For the tests' golang-go
  local found
  found=$(go env GOVERSION)
  if [[ $(printf '%s\n' 1.19 "${found#go}" | sort --version-sort | head -n 1) != 1.19 ]]; then
    printf 'Go %s is too old: 1.19 or newer is needed\n' "${found#go}" >&2
    return 1
  fi
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
need_cargo_deny() {
  cargo deny --version >/dev/null 2>&1 || cargo install --quiet --locked --debug "cargo-deny@$cargo_deny"
}

main
