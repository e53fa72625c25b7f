#!/usr/bin/env bash
# Runs the real clients against the real binary: tests/e2e/run.sh [BINARY [CLIENT…]], or with --slow in place of the clients those
# that take long to build and to run, which CI leaves to `make clients`.
#
# Everything happens in network, mount and process namespaces of our own: the
# gateway listens on its default ports whatever else the machine runs, what the
# clients keep under /etc, /run, /var/lib and $HOME is for the run alone, and no
# process outlives it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
clients=(http v1 old_docker docker podman skopeo buildah containerd crane regctl oras regsync python token_service mirror fronted second)
slow=(buildkit helm cosign notation jib ko containerd2 oci_client flux trivy syft docker29)

main() {
  local binary=${1:-$here/../../target/release/dockgate}
  [[ -x $binary ]] || refuse "no program at $binary: build it first with 'cargo build --release --locked'"
  binary=$(realpath "$binary")
  shift || true
  [[ $# -gt 0 ]] && clients=("$@")
  [[ ${clients[*]} != --slow ]] || clients=("${slow[@]}")
  if [[ ${DOCKGATE_E2E_INSIDE:-} != 1 ]]; then
    require_programs
    build_go_clients
    install_v1_clients
    install_python_clients
    build_slow_clients
    "$here/old_docker/build.sh" "$here/../../.test/old-docker" || refuse "old docker does not build: see above"
    "$here/../v1/install.sh" "$here/../../.test/v1"
    enter_namespaces "$binary" "${clients[@]}"
  fi
  make_workplace
  run_clients "$binary"
  report
}

refuse() {
  printf 'tests/e2e: %s\n' "$*" >&2
  exit 1
}

require_programs() {
  local program missing=()
  for program in buildah busybox containerd ctr curl docker docker-registry dockerd go htpasswd ip jq node npm openssl podman python3 \
    runc skopeo unshare; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [[ ${#missing[@]} -eq 0 ]] || refuse "not installed: ${missing[*]}; run tests/install.sh"
  [[ $EUID -eq 0 ]] || command -v sudo >/dev/null ||
    refuse "dockerd and the namespaces need root, and there is no sudo: run this as root"
}

# Debian packages none of crane, regctl, regsync and oras; their versions are pinned in clients/go.sum.
build_go_clients() {
  local bin=$here/../../.test/bin
  mkdir -p "$bin"
  (cd "$here/clients" && GOFLAGS='-mod=readonly -buildvcs=false' CGO_ENABLED=0 go build -o "$(realpath "$bin")/" \
    github.com/google/go-containerregistry/cmd/crane github.com/regclient/regclient/cmd/regctl github.com/regclient/regclient/cmd/regsync \
    oras.land/oras/cmd/oras) ||
    refuse "crane, regctl, regsync and oras do not build: see above"
}

# The v1 clients that can still be had, for v1.sh: pinned in clients/v1, in folders of their own.
install_v1_clients() {
  local recipe=$here/clients/v1 place=$here/../../.test/v1-clients found
  found=$(cat "$recipe/package-lock.json" "$recipe/requirements.txt" | sha256sum)
  [[ $(cat "$place/complete" 2>/dev/null) != "$found" ]] || return 0
  rm -rf "$place"
  mkdir -p "$place"
  cp "$recipe/package.json" "$recipe/package-lock.json" "$place/"
  npm ci --silent --ignore-scripts --omit=optional --no-audit --no-fund --prefix "$place" ||
    refuse "npm's docker-registry-client cannot be installed: see above"
  python_environment "$place/python" "$recipe/requirements.txt"
  printf '%s\n' "$found" >"$place/complete"
}

install_python_clients() {
  local recipe=$here/clients/python/requirements.txt place=$here/../../.test/python-clients found
  found=$(sha256sum <"$recipe")
  [[ $(cat "$place/complete" 2>/dev/null) != "$found" ]] || return 0
  rm -rf "$place"
  python_environment "$place" "$recipe"
  printf '%s\n' "$found" >"$place/complete"
}

# python_environment DIRECTORY REQUIREMENTS
python_environment() {
  python3 -m venv "$1" || refuse "python3 makes no virtual environment: see above"
  "$1/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$2" || refuse "what $2 names cannot be installed: see above"
}

# Each by itself. One that cannot be had is told of in run_clients, and the others are run all the same.
build_slow_clients() {
  local client
  for client in "${clients[@]}"; do
    # The engine's containerd.
    [[ $client != docker29 ]] || build_slow_client containerd2
    ! is_slow "$client" || build_slow_client "$client"
  done
}

# build_slow_client NAME: leaves a file `built` where it succeeds.
build_slow_client() {
  local began=$SECONDS place=$here/../../.test/clients/$1
  printf '%s: building\n' "$1"
  rm -f "$place/built"
  if "$here/clients/build.sh" "$1" "$place"; then
    touch "$place/built"
    printf '%s: built in %d s\n' "$1" "$((SECONDS - began))"
  else
    printf '%s: NOT BUILT, after %d s\n' "$1" "$((SECONDS - began))" >&2
  fi
}

is_slow() { [[ " ${slow[*]} " == *" $1 "* ]]; }

# With an environment of our own, too: a proxy, a login or a setting of whoever runs this is none of the clients' business.
enter_namespaces() {
  local become_root=()
  [[ $EUID -eq 0 ]] || become_root=(sudo --)
  exec "${become_root[@]}" unshare --net --mount --pid --fork --kill-child --mount-proc \
    env --ignore-environment DOCKGATE_E2E_INSIDE=1 DOCKGATE_E2E_KEEP="${DOCKGATE_E2E_KEEP:-}" TMPDIR="${TMPDIR:-/tmp}" \
    LANG=C.UTF-8 PATH="$PATH" bash "$here/run.sh" "$@"
}

# 192.0.2.0/24 belongs to documentation (RFC 5737) and here to this namespace's
# loopback device alone. Docker trusts any certificate on 127.0.0.0/8, so only
# another address shows that the CA in certs.d is what makes it work. Registries
# elsewhere have an address of their own, and the gateway a second name.
make_workplace() {
  ip link set lo up
  ip address add 192.0.2.10/32 dev lo
  ip address add 192.0.2.20/32 dev lo
  work=$(mktemp -d "${TMPDIR:-/tmp}/dockgate-e2e.XXXXXX")
  trap remove_workplace EXIT
  export work HOME=$work PATH=$here/../../.test/bin:$PATH
  export results=$work/results
  : >"$results"
  local directory
  mkdir -p /var/lib/containers
  for directory in /run /var/lib/containers; do mount -t tmpfs dockgate-e2e "$directory"; done
  for directory in /etc/docker /etc/containers; do
    mkdir -p "$directory" "$work$directory"
    cp -a "$directory/." "$work$directory"
    rm -rf "$work$directory/certs.d"
    mount --bind "$work$directory" "$directory"
  done
  cp /etc/hosts "$work/etc/hosts"
  printf '192.0.2.10 hub.example\n' >>"$work/etc/hosts"
  mount --bind "$work/etc/hosts" /etc/hosts
  bash "$here/images.sh" "$work/images"
}

remove_workplace() {
  if [[ -n ${DOCKGATE_E2E_KEEP:-} ]]; then
    printf 'kept: %s\n' "$work"
    return
  fi
  # dockerd may leave its data directory mounted on itself.
  findmnt --raw --noheadings --output TARGET | grep -F "$work/" | sort --reverse | xargs -r -d '\n' umount --lazy || true
  umount /etc/docker /etc/containers /etc/hosts || true
  rm -rf --one-file-system "$work" || printf 'could not remove all of %s\n' "$work" >&2
}

run_clients() {
  export BINARY=$1 client
  for client in "${clients[@]}"; do
    [[ -f $here/$client.sh ]] || refuse "no such client: $client"
    if is_slow "$client" && [[ ! -e $here/../../.test/clients/$client/built ]]; then
      printf 'FAILED %s: it could not be built; see above\n' "$client" | tee -a "$results"
      continue
    fi
    ! is_slow "$client" || printf '%s: running\n' "$client"
    bash "$here/$client.sh" || printf 'FAILED %s: the script broke off before its end\n' "$client" | tee -a "$results"
  done
}

report() {
  local passed failed
  passed=$(grep -c '^ok ' "$results" || true)
  failed=$(grep -c '^FAILED ' "$results" || true)
  if [[ $failed -gt 0 ]]; then
    printf '\nWhat failed:\n'
    grep '^FAILED ' "$results"
  fi
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [[ $failed -eq 0 && $passed -gt 0 ]]
}

main "$@"
