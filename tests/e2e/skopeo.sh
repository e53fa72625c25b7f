#!/usr/bin/env bash
# skopeo: copies of one image and of an index of several, inspect, list-tags, delete.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export REGISTRY_AUTH_FILE=$place/auth.json
private=docker://$secure/team/app
single=$(cat "$images/single.digest")
multi=$(cat "$images/multi.digest")

skopeo() { bounded skopeo "$@"; }
login() { skopeo login --username admin --password-stdin "$secure" <<<"$1"; }
digest_of() { skopeo inspect --raw "$1" | sha256sum | sed 's/ .*//; s/^/sha256:/'; }

needs_the_ca() {
  refused 'x509|certificate' login "$password"
  mkdir -p "/etc/containers/certs.d/$secure"
  cp "$ca" "/etc/containers/certs.d/$secure/ca.crt"
  refused 'invalid username/password|unauthorized|401' login 'not the password'
  login "$password"
}

one_image() {
  skopeo copy "oci:$images/oci:single" "$private:1"
  same "$single" "$(digest_of "$private:1")"
  same "$single" "$(skopeo inspect --format '{{.Digest}}' "$private:1")"
  skopeo copy "$private:1" "oci:$place/back:1"
  same "$single" "$(jq -r '.manifests[0].digest' "$place/back/index.json")"
}

from_a_docker_archive() {
  skopeo copy "docker-archive:$images/single.tar" "$private:archive"
  same application/vnd.docker.distribution.manifest.v2+json "$(skopeo inspect --raw "$private:archive" | jq -r .mediaType)"
}

whole_index() {
  skopeo copy --all "oci:$images/oci:multi" "$private:multi"
  same "$multi" "$(digest_of "$private:multi")"
  skopeo copy --all "$private:multi" "$private-copy:multi"
  same "$multi" "$(digest_of "$private-copy:multi")"
  skopeo copy --all --preserve-digests "$private-copy:multi" "oci:$place/all:multi"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/all/index.json")"
  local child
  for child in $(skopeo inspect --raw "$private:multi" | jq -r '.manifests[].digest'); do
    same "$child" "$(digest_of "$private@$child")"
    [[ -f $place/all/blobs/sha256/${child#sha256:} ]] || fail "the copy lacks $child"
  done
}

docker_manifest_list() {
  skopeo copy --all --format v2s2 "oci:$images/oci:multi" "$private:list"
  same application/vnd.docker.distribution.manifest.list.v2+json "$(skopeo inspect --raw "$private:list" | jq -r .mediaType)"
}

architecture_is_chosen() {
  same arm64 "$(skopeo --override-arch arm64 inspect --format '{{.Architecture}}' "$private:multi")"
}

tags_are_listed() {
  same '1 archive list multi' "$(skopeo list-tags "$private" | jq -r '.Tags | sort | join(" ")')"
}

deleted_is_gone() {
  skopeo copy "oci:$images/oci:single" "docker://$secure/team/doomed:1"
  skopeo delete "docker://$secure/team/doomed:1"
  refused 'manifest unknown|not found' skopeo inspect "docker://$secure/team/doomed:1"
  same "$single" "$(digest_of "$private:1")"
}

developer_may_not_delete() {
  refused 'denied|unauthorized|403' skopeo delete --creds dev:developer-password "$private:1"
  same "$single" "$(digest_of "$private:1")"
}

stranger_sees_nothing() {
  refused 'unauthorized|denied|authentication required' skopeo inspect --no-creds "$private:1"
  refused 'unauthorized|denied|not found|name unknown|manifest unknown' \
    skopeo inspect --creds dev:developer-password "docker://$secure/secret/app:1"
}

public_without_login() {
  skopeo copy --all "oci:$images/oci:multi" "docker://$secure/public/app:1"
  skopeo copy --all --src-no-creds "docker://$secure/public/app:1" "oci:$place/public:1"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/public/index.json")"
}

over_plain_http() {
  skopeo copy --all --dest-tls-verify=false --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$plain/team/plain:1"
  skopeo copy --all --src-tls-verify=false --src-creds "admin:$password" "docker://$plain/team/plain:1" "oci:$place/plain:1"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/plain/index.json")"
}

gateway_start
user_add dev developer-password
check 'login needs the CA and the right password' needs_the_ca
check 'one image there and back; the digests are equal' one_image
check 'a docker schema 2 image from an archive' from_a_docker_archive
check 'a whole index with --all, there, across and back; the digests are equal' whole_index
check 'a docker manifest list' docker_manifest_list
check 'the image for another architecture' architecture_is_chosen
check 'list-tags' tags_are_listed
check 'a deleted image is gone and its neighbour stays' deleted_is_gone
check 'a user without the right to delete cannot' developer_may_not_delete
check 'without the right to pull, nothing is shown' stranger_sees_nothing
check 'a public index is copied without credentials' public_without_login
check 'a whole index over plain HTTP' over_plain_http
