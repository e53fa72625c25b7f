#!/usr/bin/env bash
# buildah: an image built from nothing, and a manifest list put together by it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export REGISTRY_AUTH_FILE=$place/auth.json BUILDAH_ISOLATION=chroot
list=$secure/team/list:1
container_storage

buildah() { bounded buildah "$@"; }

logs_in() {
  mkdir -p "/etc/containers/certs.d/$secure"
  cp "$ca" "/etc/containers/certs.d/$secure/ca.crt"
  refused 'invalid username/password|unauthorized|401' buildah login --username admin --password wrong "$secure"
  buildah login --username admin --password-stdin "$secure" <<<"$password"
}

builds_and_pushes() {
  local container
  container=$(buildah from scratch)
  buildah copy "$container" "$images/marker" /etc/marker
  buildah commit --rm "$container" "$secure/team/built:1"
  buildah push --digestfile "$place/pushed" "$secure/team/built:1"
  buildah rmi "$secure/team/built:1"
  buildah pull "$secure/team/built:1"
  same "$(cat "$place/pushed")" "$(buildah inspect --type image --format '{{.FromImageDigest}}' "$secure/team/built:1")"
}

pushes_a_manifest_list() {
  buildah manifest create "$list"
  local architecture
  for architecture in amd64 arm64; do
    buildah manifest add --os linux --arch "$architecture" "$list" "docker://$secure/team/built:1"
  done
  buildah manifest push --all --digestfile "$place/list" "$list" "docker://$list"
  same "$(cat "$place/list")" "$(skopeo inspect --raw "docker://$list" | sha256sum | sed 's/ .*//; s/^/sha256:/')"
}

gateway_start
check 'login; a wrong password is told so' logs_in
check 'build, push and pull; the digests are equal' builds_and_pushes
check 'a manifest list made by buildah; the digests are equal' pushes_a_manifest_list
