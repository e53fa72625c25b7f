#!/usr/bin/env bash
# docker 29, with its images in containerd as a fresh install has them, does not look into /etc/docker/certs.d/MIRROR:PORT for the
# CA of a host in `registry-mirrors`, as docker 20.10 does: its mirrors share the settings of docker.io (moby, daemon/hosts.go), so
# that the CA belongs in certs.d/docker.io. Without it docker.io itself is asked, and where that answers, the engine's log alone
# tells of the mirror. A hosts.toml in certs.d/docker.io takes the place of `registry-mirrors`, with a CA for the mirror alone.
# What is put there holds from the next pull on, without a restart.
#
# Seen with docker's registry 2.8.2 as the mirror:
#   docker 29 (moby v2.0.0-beta.24): no CA: unknown authority
#   docker 29 (moby v2.0.0-beta.24): certs.d/MIRROR:PORT/ca.crt: unknown authority
#   docker 29 (moby v2.0.0-beta.24): certs.d/docker.io/ca.crt: pulled
#   docker 29 (moby v2.0.0-beta.24): certs.d/docker.io/hosts.toml: pulled
#   docker 29 (moby v2.0.0-beta.24), images not in containerd: no CA: unknown authority
#   docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/MIRROR:PORT/ca.crt: pulled
#   docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/docker.io/ca.crt: unknown authority
#   docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/docker.io/hosts.toml: unknown authority
#   docker 20.10.24: no CA: unknown authority
#   docker 20.10.24: certs.d/MIRROR:PORT/ca.crt: pulled
#   docker 20.10.24: certs.d/docker.io/ca.crt: unknown authority
#   docker 20.10.24: certs.d/docker.io/hosts.toml: unknown authority
# Needs root, go, curl, ip, openssl, and of Debian 12 docker.io (whose containerd is all engines') and docker-registry. Builds
# dockerd, which takes some minutes the first time. Makes everything in a temporary folder and in namespaces of its own. Fails if
# what is seen changes.
set -euo pipefail

pin=v2.0.0-beta.24
mirror=192.0.2.20:5443

if [[ ${1:-} != inside ]]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  CGO_ENABLED=0 GOBIN=$work go install -ldflags '-s -w' "github.com/moby/moby/v2/cmd/dockerd@$pin"
  # In a network of its own an engine gets nothing but from the mirror.
  unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" inside "$work"
  exit
fi

engine_29=$2/dockerd
ip link set lo up
ip address add "${mirror%:*}/32" dev lo
mkdir -p "$2/inside" /etc/docker
for folder in "$2/inside" /run /etc/docker; do mount -t tmpfs finding "$folder"; done
cd "$2/inside"

# ---- the mirror, with a CA of its own and one image ------------------------

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -keyout ca.key -out ca.crt -subj /CN=ca -days 2 2>/dev/null
openssl req "${key[@]}" -keyout server.key -out server.csr -subj /CN=mirror 2>/dev/null
printf 'subjectAltName = IP:%s\n' "${mirror%:*}" >extensions
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile extensions 2>/dev/null

cat >registry.yml <<YAML
version: 0.1
log: { level: error }
storage: { filesystem: { rootdirectory: $PWD/registry } }
http: { addr: "$mirror", secret: finding, tls: { certificate: server.crt, key: server.key } }
YAML
docker-registry serve registry.yml >registry.log 2>&1 &

# await COMMAND…: until it succeeds.
await() {
  for _ in $(seq 150); do
    ! "$@" >/dev/null 2>&1 || return 0
    sleep 0.2
  done
  printf 'not in time: %s\n' "$*" >&2
  exit 1
}

ask_mirror() { curl --fail --silent --show-error --cacert ca.crt "$@"; }

# blob FILE: prints its digest.
blob() {
  local location digest
  digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)
  location=$(ask_mirror --request POST --dump-header - "https://$mirror/v2/library/app/blobs/uploads/" | tr -d '\r' |
    sed -n 's/^Location: //ip')
  ask_mirror --request PUT --header 'Content-Type: application/octet-stream' --data-binary "@$1" "$location&digest=$digest"
  printf '%s' "$digest"
}

# descriptor KIND FILE
descriptor() {
  printf '{"mediaType": "application/vnd.oci.image.%s", "digest": "%s", "size": %d}' "$1" "$(blob "$2")" "$(stat -c %s "$2")"
}

await ask_mirror "https://$mirror/v2/"
tar --create --file layer registry.yml
architecture=$(go env GOARCH)
printf '{"os": "linux", "architecture": "%s", "config": {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
  "$architecture" "$(sha256sum <layer | cut -d' ' -f1)" >config
oci=application/vnd.oci.image.manifest.v1+json
printf '{"schemaVersion": 2, "mediaType": "%s", "config": %s, "layers": [%s]}' \
  "$oci" "$(descriptor config.v1+json config)" "$(descriptor layer.v1.tar layer)" >manifest
ask_mirror --request PUT --header "Content-Type: $oci" --data-binary @manifest "https://$mirror/v2/library/app/manifests/1"

# ---- the engines -----------------------------------------------------------

ask_engine() { curl --fail --silent --unix-socket docker.sock "$@"; }

# pulls: what an engine says of app:1, which it has not yet or not any more.
pulls() {
  : >engine.log
  ask_engine --request POST 'http://engine/images/create?fromImage=app&tag=1' >/dev/null || true
  if ask_engine --request DELETE 'http://engine/images/app:1' >/dev/null; then
    printf 'pulled'
  else
    grep -o 'unknown authority' engine.log | head -n 1
  fi
}

# looks NAME PROGRAM OPTION…: where this engine finds the CA.
looks() {
  rm -rf /etc/docker/certs.d
  # Appended to, so that the file can be emptied.
  "$2" --data-root "$PWD/data" --exec-root "$PWD/exec" --pidfile "$PWD/pid" --host "unix://$PWD/docker.sock" --bridge=none \
    --iptables=false --ip6tables=false --userland-proxy=false --registry-mirror "https://$mirror" "${@:3}" >>engine.log 2>&1 &
  local engine=$! place
  await ask_engine http://engine/_ping
  printf '%s: no CA: %s\n' "$1" "$(pulls)"
  for place in "$mirror" docker.io; do
    mkdir -p "/etc/docker/certs.d/$place"
    cp ca.crt "/etc/docker/certs.d/$place/"
    printf '%s: certs.d/%s/ca.crt: %s\n' "$1" "${place/$mirror/MIRROR:PORT}" "$(pulls)"
    rm -r "/etc/docker/certs.d/$place"
  done
  mkdir -p /etc/docker/certs.d/docker.io
  printf '[host."https://%s"]\n  capabilities = ["pull", "resolve"]\n  ca = "%s"\n' "$mirror" "$PWD/ca.crt" \
    >/etc/docker/certs.d/docker.io/hosts.toml
  printf '%s: certs.d/docker.io/hosts.toml: %s\n' "$1" "$(pulls)"
  kill "$engine"
  wait "$engine" || true
  rm -rf data exec
}

{
  looks "docker 29 (moby $pin)" "$engine_29"
  looks "docker 29 (moby $pin), images not in containerd" "$engine_29" --feature containerd-snapshotter=false
  looks "docker $(dockerd --version | sed 's/^Docker version \([0-9.]*\).*/\1/')" "$(command -v dockerd)"
} | tee seen

diff seen - <<'SEEN'
docker 29 (moby v2.0.0-beta.24): no CA: unknown authority
docker 29 (moby v2.0.0-beta.24): certs.d/MIRROR:PORT/ca.crt: unknown authority
docker 29 (moby v2.0.0-beta.24): certs.d/docker.io/ca.crt: pulled
docker 29 (moby v2.0.0-beta.24): certs.d/docker.io/hosts.toml: pulled
docker 29 (moby v2.0.0-beta.24), images not in containerd: no CA: unknown authority
docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/MIRROR:PORT/ca.crt: pulled
docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/docker.io/ca.crt: unknown authority
docker 29 (moby v2.0.0-beta.24), images not in containerd: certs.d/docker.io/hosts.toml: unknown authority
docker 20.10.24: no CA: unknown authority
docker 20.10.24: certs.d/MIRROR:PORT/ca.crt: pulled
docker 20.10.24: certs.d/docker.io/ca.crt: unknown authority
docker 20.10.24: certs.d/docker.io/hosts.toml: unknown authority
SEEN
