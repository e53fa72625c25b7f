#!/usr/bin/env bash
# Pulls the image of a siege once with each engine that benches/siege.sh has started, from nothing. The driver calls it
# (--during) with REGISTRY and IMAGE.
set -euo pipefail

: "${REGISTRY:?}" "${IMAGE:?}" "${SIEGE_WORK:?run benches/siege.sh, not this script}"
export CONTAINERS_STORAGE_CONF=$SIEGE_WORK/storage.conf
name=$REGISTRY/$IMAGE:latest
failed=()

main() {
  try docker with_docker
  try podman with_podman
  try containerd with_containerd
  try skopeo with_skopeo
  [[ ${#failed[@]} -eq 0 ]] || { printf '%s\n' "${failed[*]}" >&2; exit 1; }
}

try() {
  local said
  said=$("$2" 2>&1) || failed+=("$1: ${said##*$'\n'};")
}

with_docker() {
  timeout 15 docker pull --quiet "$name" && docker rmi "$name"
}

with_podman() {
  timeout 15 podman pull --quiet --tls-verify=false "$name" && podman rmi "$name"
}

with_containerd() {
  local ctr=(timeout 15 ctr --address "$SIEGE_WORK/containerd.sock" --namespace siege)
  "${ctr[@]}" images pull --plain-http "$name" && "${ctr[@]}" images remove --sync "$name"
}

with_skopeo() {
  rm -rf "$SIEGE_WORK/skopeo"
  timeout 15 skopeo copy --src-tls-verify=false "docker://$name" "dir:$SIEGE_WORK/skopeo"
}

main
