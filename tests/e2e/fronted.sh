#!/usr/bin/env bash
# A fronted registry: real clients push to and pull from Debian's docker-registry through the gateway, under the gateway's
# users and rules. What was pushed is asked for directly, too.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

export DOCKER_CONFIG=$place/config REGISTRY_AUTH_FILE=$place/auth.json SSL_CERT_FILE=$place/ca.crt
export REGCTL_CONFIG=$place/regctl.json BUILDAH_ISOLATION=chroot
export DOCKGATE__REGISTRY__DEFAULT=fronted
team=$secure/team

docker() { bounded docker "$@"; }
podman() { DOCKER_CONFIG=$place/no-config bounded podman "$@"; }
skopeo() { bounded skopeo "$@"; }
buildah() { bounded buildah "$@"; }
crane() { bounded crane "$@"; }
regctl() { bounded regctl "$@"; }
oras() { bounded oras "$@"; }

gateway_credentials() {
  printf robot-password >"$gateway/robot"
  upstream_file fronted <<EOF
kind = "fronted"
url = "https://$upstream"
ca = "$upstream_ca"
username = "robot"
password_file = "robot"
EOF
}

forwarded_credentials() {
  upstream_file fronted <<EOF
kind = "fronted"
url = "https://$upstream"
ca = "$upstream_ca"
authorization = "forward"
EOF
}

# log_in USER PASSWORD: crane and oras read what docker wrote, which is a refresh token; podman, skopeo and buildah have a
# file of their own, and regctl too. podman does not log in where docker left a refresh token, so it must not see it.
log_in() {
  docker login --username "$1" --password-stdin "$secure" <<<"$2"
  podman login --username "$1" --password-stdin "$secure" <<<"$2"
  regctl registry login "$secure" --user "$1" --pass-stdin <<<"$2"
}

log_out() {
  docker logout "$secure"
  podman logout "$secure"
  regctl registry logout "$secure"
}

# ---- push and pull ---------------------------------------------------------

# docker_round_trip NAME
docker_round_trip() {
  local pushed
  docker load --quiet --input "$images/single.tar"
  docker tag dockgate-test:single "$secure/$1"
  pushed=$(docker push "$secure/$1" | tee -a /dev/stderr | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p')
  same "$pushed" "$(upstream_digest "$1")"
  docker image prune --all --force
  same "$pushed" "$(docker pull "$secure/$1" | tee -a /dev/stderr | sed -n 's/^Digest: //p')"
  same "$marker" "$(docker run --rm --network none "$secure/$1")"
}

docker_pushes_again() {
  docker tag "$team/docker:1" "$team/docker:2"
  docker push "$team/docker:2" 2>&1 | tee "$place/again"
  same 2 "$(grep -c 'Layer already exists' "$place/again")"
  docker tag "$team/docker:1" "$team/mounted:1"
  docker push "$team/mounted:1" 2>&1 | tee "$place/mounted"
  same 2 "$(grep -c 'Mounted from team/docker' "$place/mounted")"
  same "$(upstream_digest team/docker:1)" "$(upstream_digest team/mounted:1)"
}

podman_round_trip() {
  podman load --quiet --input "$images/single.tar"
  podman tag docker.io/library/dockgate-test:single "$secure/$1"
  podman push --digestfile "$place/pushed" "$secure/$1"
  same "$(cat "$place/pushed")" "$(upstream_digest "$1")"
  podman rmi --all --force
  podman pull "$secure/$1"
  same "$(cat "$place/pushed")" "$(podman image inspect --format '{{.Digest}}' "$secure/$1")"
  same "$marker" "$(podman run --rm --network none "$secure/$1")"
}

# --preserve-digests: otherwise skopeo takes layers that it knows from earlier pushes, packed in another way.
skopeo_round_trip() {
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/$1"
  same "$multi" "$(upstream_digest "$1")"
  skopeo copy --all --preserve-digests "docker://$secure/$1" "docker://$secure/$1-across"
  same "$multi" "$(upstream_digest "$1-across")"
  rm -rf "$place/back"
  skopeo copy --all --preserve-digests "docker://$secure/$1" "oci:$place/back:1"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/back/index.json")"
}

buildah_round_trip() {
  local container
  container=$(buildah from scratch)
  buildah copy "$container" "$images/marker" /etc/marker
  buildah commit --rm "$container" "$team/buildah:1"
  buildah push --digestfile "$place/pushed" "$team/buildah:1"
  same "$(cat "$place/pushed")" "$(upstream_digest team/buildah:1)"
  buildah rmi "$team/buildah:1"
  buildah pull "$team/buildah:1"
  same "$(cat "$place/pushed")" "$(buildah inspect --type image --format '{{.FromImageDigest}}' "$team/buildah:1")"
  buildah manifest create list
  buildah manifest add --os linux --arch amd64 list "docker://$team/buildah:1"
  buildah manifest push --all --digestfile "$place/list" list "docker://$team/list:1"
  same "$(cat "$place/list")" "$(upstream_digest team/list:1)"
}

crane_round_trip() {
  crane push "$images/single.tar" "$team/crane:1"
  same "$(upstream_digest team/crane:1)" "$(crane digest "$team/crane:1")"
  crane validate --remote "$team/crane:1"
  crane copy "$team/skopeo:1" "$team/crane:multi"
  same "$multi" "$(upstream_digest team/crane:multi)"
  crane validate --remote "$team/crane:multi"
  crane mutate --label a=b --tag "$team/crane:mutated" "$team/crane:1"
  same "$(upstream_digest team/crane:mutated)" "$(crane digest "$team/crane:mutated")"
}

# docker-registry 2.8.2 knows no referrers, so regctl keeps the list under a tag; the gateway must not get in its way.
regctl_round_trip() {
  regctl image copy "ocidir://$images/oci:multi" "$team/regctl:1"
  same "$multi" "$(upstream_digest team/regctl:1)"
  regctl image copy "$team/regctl:1" "ocidir://$place/regctl:1"
  same "$multi" "$(regctl image digest "ocidir://$place/regctl:1")"
  printf 'checked\n' >"$place/report.txt"
  regctl artifact put --subject "$team/regctl:1" --artifact-type application/vnd.example.report --file "$place/report.txt"
  same checked "$(regctl artifact get --subject "$team/regctl:1" --filter-artifact-type application/vnd.example.report)"
}

oras_round_trip() {
  mkdir -p "$place/oras"
  printf 'a report\n' >"$place/note.txt"
  local digest
  (cd "$place" && oras push --ca-file "$ca" --artifact-type application/vnd.example.note "$team/oras:1" note.txt:text/plain)
  digest=$(upstream_digest team/oras:1)
  oras pull --ca-file "$ca" --output "$place/oras" "$team/oras:1"
  same 'a report' "$(cat "$place/oras/note.txt")"
  oras cp --from-oci-layout "$images/oci:multi" --to-ca-file "$ca" "$team/oras:multi"
  same "$multi" "$(upstream_digest team/oras:multi)"
  (cd "$place" && oras attach --ca-file "$ca" --artifact-type application/vnd.example.note "$team/oras:1" note.txt:text/plain)
  oras discover --ca-file "$ca" "$team/oras:1" | tee "$place/discovered"
  grep -q 'application/vnd.example.note' "$place/discovered" || fail 'the attached note is not discovered'
  same "$digest" "$(upstream_digest team/oras:1)"
}

# containerd_round_trip NAME USER:PASSWORD: the whole index, there and back.
containerd_round_trip() {
  ctr images import --all-platforms --base-name "$secure/imported" "$place/multi.tar"
  ctr images tag --force "$secure/imported:multi" "$secure/$1"
  ctr images push --hosts-dir "$place/hosts" --user "$2" "$secure/$1"
  same "$multi" "$(upstream_digest "$1")"
  ctr images remove --sync "$secure/$1" "$secure/imported:multi" "$secure/imported:single"
  ctr images pull --hosts-dir "$place/hosts" --user "$2" --all-platforms "$secure/$1"
  same "$multi" "$(image_digest "$secure/$1")"
  same "$marker" "$(ctr run --rm "$secure/$1" e2e-fronted)"
}

skopeo_by_the_login_of_docker() {
  grep -q identitytoken "$DOCKER_CONFIG/config.json" || fail 'docker has no refresh token'
  REGISTRY_AUTH_FILE=$DOCKER_CONFIG/config.json skopeo inspect "docker://$team/skopeo:1"
}

# ---- lists and deletion ----------------------------------------------------

# pages PATH KEY: all entries of a list, one to a page, to the end of its Links.
pages() {
  local path="$1?n=1" count=0
  while [[ -n $path ]]; do
    count=$((count + 1))
    [[ $count -le 100 ]] || fail "the pages of $1 do not end"
    curl --fail --silent --cacert "$ca" --user "admin:$password" --dump-header "$place/head" "https://$secure$path" | jq -r ".$2[]?"
    path=$(tr -d '\r' <"$place/head" | sed -n 's/^[Ll]ink: <\([^>]*\)>.*/\1/p')
  done
}

lists() {
  skopeo list-tags "docker://$team/crane"
  same '1 multi mutated' "$(pages /v2/team/crane/tags/list tags | sort | paste -sd' ')"
  pages /v2/_catalog repositories | grep -qx team/crane || fail 'the pages of the catalog lack team/crane'
  same '1 multi mutated' "$(skopeo list-tags "docker://$team/crane" | jq -r '.Tags | sort | join(" ")')"
  same '1 multi mutated' "$(crane ls "$team/crane" | sort | paste -sd' ')"
  skopeo copy --quiet "oci:$images/oci:single" "docker://$secure/secret/app:1" --dest-creds "admin:$password"
  same "$(curl --fail --silent --cacert "$upstream_ca" --user robot:robot-password "https://$upstream/v2/_catalog" | jq -r '.repositories | sort | join(" ")')" \
    "$(curl --fail --silent --cacert "$ca" --user "admin:$password" "https://$secure/v2/_catalog" | jq -r '.repositories | sort | join(" ")')"
  crane catalog "$secure" | tee "$place/catalog"
  grep -qx team/crane "$place/catalog" || fail 'the catalog lacks team/crane'
  ! grep -q secret "$place/catalog" || fail 'the catalog shows secret/app to those who may not see it'
}

deletes() {
  local digest
  log_in admin "$password"
  digest=$(crane digest "$team/crane:mutated")
  crane delete "$team/crane@$digest"
  refused 'unknown|not found|404' crane digest "$team/crane:mutated"
  refused 'unknown' upstream_digest_or_error team/crane:mutated
  skopeo copy --quiet "oci:$images/oci:single" "docker://$team/doomed:1"
  skopeo delete "docker://$team/doomed:1"
  refused 'manifest unknown|not found' skopeo inspect "docker://$team/doomed:1"
  refused 'unknown' upstream_digest_or_error team/doomed:1
  regctl image copy "$team/crane:1" "$team/crane:doomed"
  regctl tag delete "$team/crane:doomed"
  same '1 multi' "$(crane ls "$team/crane" | sort | paste -sd' ')"
  same "$(upstream_digest team/crane:1)" "$(crane digest "$team/crane:1")"
}

upstream_digest_or_error() { bounded skopeo inspect --raw --cert-dir "${upstream_ca%/*}" --creds robot:robot-password "docker://$upstream/$1"; }

# ---- users -----------------------------------------------------------------

who_may_not_is_refused() {
  log_in dev developer-password
  refused 'denied|unauthorized|403' skopeo delete "docker://$team/crane:1"
  refused 'denied|unauthorized|not found|unknown' skopeo copy "oci:$images/oci:single" "docker://$secure/elsewhere/app:1"
  log_in guest guest-password
  docker tag "$team/docker:1" "$team/guest:1"
  refused 'denied|unauthorized|not found|unknown' docker push "$team/guest:1"
  refused 'denied|unauthorized|not found|unknown' docker pull "$team/docker:1"
  refused 'denied|unauthorized|authentication required|unknown' podman push "$team/podman:1" "$team/guest:1"
  refused 'denied|unauthorized|unknown' crane push "$images/single.tar" "$team/guest:1"
  refused 'denied|unauthorized|unknown' skopeo inspect "docker://$team/skopeo:1"
  log_out
  refused 'denied|unauthorized|no basic auth' docker push "$team/guest:1"
  refused 'denied|unauthorized' crane digest "$team/docker:1"
  refused 'unknown' upstream_digest_or_error team/guest:1
}

public_without_a_login() {
  log_in admin "$password"
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/public/app:1"
  log_out
  docker image prune --all --force
  same "$multi" "$(docker pull "$secure/public/app:1" | sed -n 's/^Digest: //p')"
  crane validate --remote "$secure/public/app:1"
  refused 'denied|unauthorized|authentication required' skopeo copy "oci:$images/oci:single" "docker://$secure/public/app:2"
}

blobs_are_sent_once() {
  log_in dev developer-password
  cold
  crane validate --remote "$team/skopeo:1"
  crane validate --remote "$team/regctl:1"
  each_blob_once
}

pulls_go_on_without_it() {
  docker image prune --all --force
  docker pull "$team/docker:1"
  upstream_stop
  docker image prune --all --force
  docker pull "$team/docker:1"
  crane validate --remote "$team/skopeo:1"
  refused 'fronted|upstream|502|503' crane push "$images/single.tar" "$team/late:1"
  upstream_start
}

# ---- authorization = "forward" ---------------------------------------------

forward_set_up() {
  log_out
  gateway_stops_cleanly
  forwarded_credentials
  gateway_start
  log_in dev developer-password
}

forward_round_trips() {
  docker_round_trip team/forward-docker:1
  podman_round_trip team/forward-podman:1
  skopeo_round_trip team/forward-skopeo:1
  containerd_round_trip team/forward-containerd:1 dev:developer-password
  crane push "$images/single.tar" "$team/forward-crane:1"
  crane validate --remote "$team/forward-crane:1"
}

# The gateway lets admin do all, but the real registry does not know that user.
forward_refuses_whom_it_does_not_know() {
  log_in admin "$password"
  refused 'denied|unauthorized|credentials' crane digest "$team/forward-crane:1"
  refused 'denied|unauthorized|credentials' docker push "$team/forward-docker:1"
  refused 'denied|unauthorized|credentials|authentication required|invalid username' skopeo copy "docker://$team/forward-skopeo:1" "oci:$place/stolen:1"
}

# ---- a registry without users ----------------------------------------------

without_any_authentication() {
  log_in admin "$password"
  crane push "$images/single.tar" "$secure/open/crane:1"
  same "$(crane digest --insecure "$open/crane:1")" "$(crane digest "$secure/open/crane:1")"
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/open/skopeo:1"
  same "$multi" "$(crane digest --insecure "$open/skopeo:1")"
  crane validate --remote "$secure/open/skopeo:1"
}

set_up() {
  upstream_start
  open_start
  gateway_credentials
  printf 'kind = "fronted"\nurl = "http://%s"\n' "$open" | upstream_file open
  gateway_start
  user_add dev developer-password
  user_add guest guest-password
  podman_settings
  container_storage
  engine_start
  clients_trust "$secure"
  regctl registry set "$secure" --cacert "$(cat "$ca")"
  containerd_start
  mkdir -p "$place/hosts/$secure"
  printf 'server = "https://%s"\n[host."https://%s"]\n  ca = "%s"\n' "$secure" "$secure" "$ca" >"$place/hosts/$secure/hosts.toml"
  tar --create --file "$place/multi.tar" --directory "$images/oci" .
  log_in dev developer-password
}

set_up
check 'docker: push, pull and run' docker_round_trip team/docker:1
check 'docker: what is there is not uploaded again, and layers are mounted' docker_pushes_again
check 'podman: push, pull and run' podman_round_trip team/podman:1
check 'skopeo: a whole index there, across and back' skopeo_round_trip team/skopeo:1
check 'buildah: build, push and pull; a manifest list' buildah_round_trip
check 'containerd: a whole index, push, pull and run' containerd_round_trip team/containerd:1 dev:developer-password
check 'crane: push, copy, mutate and validate' crane_round_trip
check 'regctl: a whole index there and back; an artifact' regctl_round_trip
check 'oras: artifacts there and back, attached and discovered' oras_round_trip
check 'skopeo: by the refresh token that docker got' skopeo_by_the_login_of_docker
check 'tags and repositories are listed, and only those that one may see' lists
check 'delete by crane, skopeo and regctl; it is gone there too' deletes
check 'who may not push, pull or delete is refused by each client' who_may_not_is_refused
check 'a public image without a login' public_without_a_login
check 'each blob is asked for once' blobs_are_sent_once
check 'what was pulled can be pulled while it is down, and a push says why not' pulls_go_on_without_it
check 'a registry without any authentication (crane'\''s)' without_any_authentication
check 'forward: the gateway starts, and users log in' forward_set_up
check 'forward: push and pull by docker, podman, skopeo, containerd and crane' forward_round_trips
check 'forward: whom the real registry does not know is refused' forward_refuses_whom_it_does_not_know
