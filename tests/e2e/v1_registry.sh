# shellcheck shell=bash
# The real docker-registry 0.9.1 (tests/v1), for the scripts that put the gateway before it.
# shellcheck disable=SC2034,SC2154  # lib.sh has the daemons; the scripts that source this use its variables

: "${place:?source lib.sh first}" "${gateway:?}" "${admin:?}"

tests=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
v1_port=5002
mkdir -p "$gateway/upstreams"

# upstream_is STANDALONE: whether the registry is its own index.
upstream_is() {
  cat >"$gateway/upstreams/legacy-v1.toml" <<EOF
kind = "legacy"
peers = ["http://127.0.0.1:$v1_port"]
health = { interval = "1s" }
standalone = $1
EOF
}

registry_answers() { curl --fail --silent --output /dev/null "http://127.0.0.1:$v1_port/v1/_ping"; }

registry_start() {
  daemon_start registry 60 registry_answers env "$@" "$tests/v1/run.sh" "$tests/../.test/v1" "$v1_port" "$place/registry"
  registry=${daemons[-1]}
}

registry_stop() {
  kill -TERM "$registry"
  await 30 gone "$registry"
}

# healthy_peers NUMBER: what the gateway knows of it.
healthy_peers() { curl --silent "http://$admin/metrics" | grep -q "^dockgate_upstream_healthy_peers{upstream=\"legacy-v1\"} $1\$"; }
