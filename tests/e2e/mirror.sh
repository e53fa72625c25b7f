#!/usr/bin/env bash
# Mirrors: real clients pull a registry elsewhere through the gateway, each in the ways that it knows. There is no way out of
# this namespace, so an image named docker.io/… came through the gateway.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

by_name=hub.example:5000                    # the gateway's name for all of docker.io
hub=docker.io/library/app:1
corp=$secure/corp/team/app:1
export DOCKER_CONFIG=$place/config REGISTRY_AUTH_FILE=$place/auth.json SSL_CERT_FILE=$place/ca.crt
export CONTAINERS_REGISTRIES_CONF=$place/registries.conf

docker() { bounded docker "$@"; }
podman() { DOCKER_CONFIG=$place/no-config bounded podman "$@"; }
skopeo() { bounded skopeo --registries-conf "$CONTAINERS_REGISTRIES_CONF" "$@"; }
crane() { bounded crane "$@"; }
oras() { bounded oras "$@"; }

# ---- what is there ---------------------------------------------------------

# docker.io is for anyone; of corp, library is for anyone and the rest for developers; open has no users at all.
mirrors_make() {
  mirror_file hub "${as_hub[@]}" 'hosts = ["hub.example"]' 'docker_mirror = true'
  mirror_file corp 'namespaces = ["registry.corp.example"]' 'tag_ttl = "0s"'
  upstream_file wrong <<EOF
kind = "mirror"
url = "https://$upstream"
ca = "$upstream_ca"
username = "robot"
password = "not the password"
EOF
  upstream_file open <<EOF
kind = "mirror"
url = "http://$open"
EOF
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["docker.io/**", "corp/library/*", "open/**", "wrong/**"]
actions = ["pull"]

[[access]]
who = ["group:developers"]
repositories = ["corp/**"]
actions = ["pull", "push"]
'
}

# ---- docker ----------------------------------------------------------------

# docker_pulls NAME: cold, and runs it.
docker_pulls() {
  docker image prune --all --force
  docker pull "$1" | tee -a /dev/stderr >"$place/pulled"
  same "$multi" "$(sed -n 's/^Digest: //p' "$place/pulled")"
  same "$marker" "$(docker run --rm --network none "$1")"
}

docker_by_its_mirror() {
  engine_mirror "$1"
  cold
  docker_pulls app
  docker_pulls app:1
  each_blob_once
}

docker_by_prefix() {
  docker image prune --all --force
  refused 'denied|unauthorized|no basic auth' docker pull "$corp"
  cold
  docker_pulls "$secure/corp/library/app:1"
  docker login --username dev --password-stdin "$secure" <<<developer-password
  docker_pulls "$corp"
  docker_pulls "$secure/docker.io/library/app:1"
  each_blob_once
}

docker_cannot_push() {
  docker tag "$secure/docker.io/library/app:1" "$secure/corp/team/new:1"
  refused 'mirror|denied|unsupported' docker push "$secure/corp/team/new:1"
  docker logout "$secure"
}

# ---- containerd ------------------------------------------------------------

# containerd_pulls NAME OPTION…
containerd_pulls() {
  ctr images pull --hosts-dir "$place/hosts" "${@:2}" "$1"
  same "$multi" "$(image_digest "$1")"
  same "$marker" "$(ctr run --rm "$1" e2e-mirror)"
  ctr images remove --sync "$1"
}

containerd_without_override_path() {
  hosts_file docker.io https://docker.io "https://$secure"
  cold
  containerd_pulls "$hub"
  each_blob_once
}

containerd_with_override_path() {
  hosts_file docker.io https://docker.io "https://$secure/v2/docker.io" 'override_path = true'
  cold
  containerd_pulls "$hub"
  each_blob_once
  hosts_file docker.io https://docker.io "https://$secure/docker.io/v2" 'override_path = true'
  containerd_pulls "$hub"
  hosts_file docker.io https://docker.io "https://$secure/docker.io"
  containerd_pulls "$hub"
}

containerd_with_a_login() {
  hosts_file registry.corp.example https://registry.corp.example "https://$secure"
  containerd_pulls registry.corp.example/library/app:1
  containerd_pulls registry.corp.example/team/app:1 --user dev:developer-password
  refused 'unauthorized|401|authorization failed|denied|not found|failed to do request' \
    ctr images pull --hosts-dir "$place/hosts" registry.corp.example/team/app:1
}

namespace_is_echoed() {
  same docker.io "$(curl --fail --silent --head --cacert "$ca" "https://$secure/v2/library/app/manifests/1?ns=docker.io" |
    tr -d '\r' | sed -n 's/^oci-namespace: //Ip')"
}

# ---- podman and skopeo -----------------------------------------------------

# registries_conf MIRROR: of docker.io; registry.corp.example is but another name for what is below corp here.
registries_conf() {
  cat >"$CONTAINERS_REGISTRIES_CONF" <<EOF
[[registry]]
prefix = "docker.io"
location = "docker.io"
[[registry.mirror]]
location = "$1"

[[registry]]
prefix = "registry.corp.example"
location = "$secure/corp"
EOF
}

podman_pulls() {
  podman rmi --all --force
  podman pull "$1"
  podman image inspect --format '{{join .RepoDigests "\n"}}' "$1" | grep -q "@$multi$" || fail "not the digest $multi"
  same "$marker" "$(podman run --rm --network none "$1")"
}

podman_by_mirrors() {
  registries_conf "$secure/docker.io"
  cold
  podman_pulls "$hub"
  each_blob_once
  registries_conf "$by_name"
  podman_pulls "$hub"
  podman_pulls "$secure/docker.io/library/app:1"
}

podman_with_a_login() {
  registries_conf "$secure/docker.io"
  podman_pulls registry.corp.example/library/app:1
  refused 'unauthorized|denied|authentication required' podman pull registry.corp.example/team/app:1
  podman login --username dev --password-stdin "$secure" <<<developer-password
  podman_pulls registry.corp.example/team/app:1
  podman_pulls "$corp"
  podman logout "$secure"
}

# skopeo_copies NAME OPTION…: all of it, and every digest stays.
skopeo_copies() {
  rm -rf "$place/copy"
  skopeo copy --all --preserve-digests "${@:2}" "docker://$1" "oci:$place/copy:1"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/copy/index.json")"
}

skopeo_by_mirrors() {
  registries_conf "$by_name"
  cold
  skopeo_copies "$hub"
  each_blob_once
  registries_conf "$secure/docker.io"
  skopeo_copies "$hub"
  same '1 latest' "$(skopeo list-tags "docker://$secure/docker.io/library/app" | jq -r '.Tags | sort | join(" ")')"
}

skopeo_with_a_login() {
  registries_conf "$secure/docker.io"
  refused 'unauthorized|denied|authentication required' skopeo inspect "docker://$corp"
  skopeo_copies "$corp" --src-creds dev:developer-password
  skopeo_copies "$secure/corp/library/app:1"
  # Credentials of the command line are for the name that stands there, and not for where registries.conf leads.
  skopeo login --username dev --password-stdin "$secure" <<<developer-password
  skopeo_copies registry.corp.example/team/app:1
  skopeo logout "$secure"
}

# ---- crane and oras --------------------------------------------------------

crane_pulls() {
  cold
  crane validate --remote "$secure/$hub"
  each_blob_once
  refused 'UNAUTHORIZED|DENIED' crane digest "$corp"
  crane auth login "$secure" --username dev --password-stdin <<<developer-password
  same "$multi" "$(crane digest "$corp")"
  crane validate --remote "$corp"
  same '1' "$(crane ls "$secure/corp/team/app")"
  crane pull --platform linux/arm64 "$corp" "$place/crane.tar"
}

oras_pulls() {
  cold
  oras cp --from-ca-file "$ca" --to-oci-layout "$secure/$hub" "$place/oras:1"
  same "$multi" "$(jq -r '.manifests[0].digest' "$place/oras/index.json")"
  each_blob_once
  refused 'unauthorized|denied|401' oras manifest fetch --registry-config "$place/nobody.json" --ca-file "$ca" "$corp"
  oras manifest fetch --ca-file "$ca" --username dev --password developer-password --output "$place/oras.json" "$corp"
  same "$multi" "sha256:$(sha256sum <"$place/oras.json" | cut -d' ' -f1)"
}

oras_pulls_an_artifact() {
  mkdir -p "$place/artifact"
  printf 'a report\n' >"$place/report.txt"
  (cd "$place" && oras push --ca-file "$upstream_ca" --username robot --password robot-password --artifact-type \
    application/vnd.example.report "$upstream/library/report:1" report.txt:text/plain)
  oras pull --ca-file "$ca" --output "$place/artifact" "$secure/docker.io/library/report:1"
  same 'a report' "$(cat "$place/artifact/report.txt")"
}

# ---- others ----------------------------------------------------------------

without_any_authentication() {
  crane validate --remote "$secure/open/library/app:1"
  skopeo_copies "$secure/open/library/app:1"
  docker_pulls "$secure/open/library/app:1"
}

wrong_credentials_are_told() {
  refused 'credentials|username' crane digest "$secure/wrong/library/app:1"
  grep -q 'wrong' "$gateway/log"
}

# What all clients do below, whether the upstream is there or not.
everybody_pulls() {
  docker_pulls app
  containerd_pulls "$hub"
  podman_pulls "$hub"
  skopeo_copies "$hub"
  skopeo_copies "$corp" --src-creds dev:developer-password
  crane validate --remote "$corp"
  oras cp --from-ca-file "$ca" --to-oci-layout "$secure/$hub" "$place/oras-again:1"
}

second_pull_asks_nothing() {
  "$BINARY" cache warm --config "$gateway/gateway.toml" docker.io/library/app:1 docker.io/library/app:latest
  mark
  docker_pulls app
  containerd_pulls "$hub"
  podman_pulls "$hub"
  skopeo_copies "$hub"
  crane validate --remote "$secure/$hub"
  nothing_asked
}

old_tag_is_revalidated_by_head() {
  mark
  same "$multi" "$(crane digest "$corp")"
  skopeo_copies "$corp" --src-creds dev:developer-password
  requests | sort | uniq -c
  same 'HEAD /v2/team/app/manifests/1 200' "$(requests | sort -u)"
}

pulls_go_on_without_the_upstream() {
  upstream_stop
  everybody_pulls
}

gateway_starts_without_the_upstream() {
  gateway_stops_cleanly
  gateway_start
  everybody_pulls
  refused 'hub|upstream|502|503|BAD_GATEWAY|UNAVAILABLE' crane digest "$secure/docker.io/library/unknown:1"
}

new_image_is_seen_when_it_is_back() {
  upstream_start
  upstream_fill library/new:1
  same "$multi" "$(crane digest "$secure/docker.io/library/new:1")"
}

set_up() {
  upstream_start
  local name
  for name in library/app:1 library/app:latest team/app:1; do upstream_fill "$name"; done
  open_start
  mirrors_make
  gateway_start
  user_add dev developer-password
  clients_trust "$secure" "$by_name"
  registries_conf "$by_name"
  podman_settings
  container_storage
  engine_mirror "https://$by_name"
  engine_start
  containerd_start
}

set_up
check 'docker: registry-mirrors with a name of the gateway for all of docker.io' docker_by_its_mirror "https://$by_name"
check 'docker: registry-mirrors with the main name, for library' docker_by_its_mirror "https://$secure"
check 'docker: by the prefix, without and with a login' docker_by_prefix
check 'docker: a mirror is not pushed to' docker_cannot_push
check 'containerd: hosts.toml without override_path' containerd_without_override_path
check 'containerd: hosts.toml with override_path, and with the prefix before v2' containerd_with_override_path
check 'containerd: hosts.toml with a login, and mixed' containerd_with_a_login
check 'ns is answered by OCI-Namespace' namespace_is_echoed
check 'podman: mirrors in registries.conf, by prefix and by name' podman_by_mirrors
check 'podman: registries.conf with a login, and mixed' podman_with_a_login
check 'skopeo: mirrors in registries.conf, a whole index and list-tags' skopeo_by_mirrors
check 'skopeo: with a login, and mixed' skopeo_with_a_login
check 'crane: validate, digest, ls and pull' crane_pulls
check 'oras: a whole index, and a manifest with a login' oras_pulls
check 'oras: an artifact' oras_pulls_an_artifact
check 'a registry without any authentication (crane'\''s)' without_any_authentication
check 'credentials that the upstream refuses are named' wrong_credentials_are_told
check 'a second pull by each client asks the upstream nothing' second_pull_asks_nothing
check 'a tag that is too old is asked for by HEAD, and nothing else is' old_tag_is_revalidated_by_head
check 'pulls by each client go on while the upstream is down' pulls_go_on_without_the_upstream
check 'the gateway starts while the upstream is down, and all pull' gateway_starts_without_the_upstream
check 'when the upstream is back, new images are seen' new_image_is_seen_when_it_is_back
