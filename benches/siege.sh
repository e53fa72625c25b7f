#!/usr/bin/env bash
# Besieges dockgate and writes what its other clients see into docs/reliability.md. `make siege` calls it; what follows
# goes to the driver: benches/siege.sh --help
#   binary=PROGRAM benches/siege.sh --only windows0,floods
# With engines=1, docker, podman and containerd pull during each siege: that takes root, and the packages of the tests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=
daemons=()

main() {
  local program driver
  program=$(realpath -m "${binary:-${CARGO_TARGET_DIR:-$root/target}/release/dockgate}")
  cd "$root"
  case " $* " in *' --help '*) exec cargo bench --locked --bench siege -- --help ;; esac
  [[ -x $program ]] || { printf '%s is not there: make build\n' "$program" >&2; exit 1; }
  work=$(mktemp -d "${TMPDIR:-/tmp}/dockgate-siege.XXXXXX")
  trap leave EXIT
  # Building the driver may build the program again, with what only tests need.
  cp "$program" "$work/dockgate"
  driver=(cargo bench --locked --bench siege -- --binary "$work/dockgate")
  case " $* " in
    *' --short '*) ;;
    *)
      driver+=(--beside benches/siege/a96346b.tsv --record "${CARGO_TARGET_DIR:-target}/siege.tsv")
      driver+=(--page docs/reliability.md)
      ;;
  esac
  if [[ ${engines:-0} == 1 ]]; then
    start_engines
    driver+=(--during "$(realpath "${BASH_SOURCE[0]%.sh}/pull.sh")")
  fi
  "${driver[@]}" "$@"
}

# Each in a directory of its own, without a bridge and without firewall rules: nothing runs in them.
start_engines() {
  local program
  for program in docker dockerd containerd ctr podman skopeo; do
    command -v "$program" >/dev/null || { printf '%s is not there: tests/install.sh\n' "$program" >&2; exit 1; }
  done
  export SIEGE_WORK=$work
  export DOCKER_HOST=unix://$work/docker.sock
  printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$work/root" "$work/runroot" >"$work/storage.conf"
  cat >"$work/containerd.toml" <<EOF
version = 2
root = "$work/containerd"
state = "$work/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$work/containerd.sock"
[ttrpc]
address = "$work/containerd.sock.ttrpc"
EOF
  start containerd containerd --config "$work/containerd.toml"
  start dockerd dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" \
    --host "$DOCKER_HOST" --bridge=none --iptables=false --ip6tables=false
  await ctr --address "$work/containerd.sock" version
  await docker version
}

start() {
  local name=$1
  shift
  "$@" </dev/null >"$work/$name.log" 2>&1 &
  daemons+=("$!")
}

await() {
  local deadline=$((SECONDS + 60))
  until "$@" >/dev/null 2>&1; do
    [[ $SECONDS -lt $deadline ]] || { printf 'not within a minute: %s\n' "$*" >&2; tail -n 20 "$work"/*.log >&2; exit 1; }
    sleep 0.2
  done
}

leave() {
  local pid
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf --one-file-system "$work"
}

main "$@"
