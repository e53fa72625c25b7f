#!/usr/bin/env bash
# Upstreams that ask for tokens: a second dockgate, and Debian's docker-registry whose token service the second dockgate is.
# Real clients push and pull both through the gateway.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

second=192.0.2.20:5443      # the second dockgate
tokens=192.0.2.20:5444      # docker-registry, over TLS with the second's CA
by_name=hub.example:5000    # the gateway's name for what is forwarded
behind=$place/second
second_ca=$behind/certs/ca.crt
multi=$(cat "$images/multi.digest")
export DOCKER_CONFIG=$place/config REGISTRY_AUTH_FILE=$place/auth.json SSL_CERT_FILE=$place/ca.crt

docker() { bounded docker "$@"; }
podman() { DOCKER_CONFIG=$place/no-config bounded podman "$@"; }
skopeo() { bounded skopeo "$@"; }
crane() { bounded crane "$@"; }
oras() { bounded oras "$@"; }

# ---- what is there ---------------------------------------------------------

second_make() {
  mkdir -p "$behind"
  cat >"$behind/gateway.toml" <<EOF
[listen.main]
address = "$second"

[identity]
htpasswd = "htpasswd"

[identity.token]
services = ["tokens.example"]

[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]

[[access]]
who = ["user:robot", "user:dev"]
repositories = ["team/**", "public/**"]
actions = ["pull", "push", "delete"]

[registry]
data = "data"

[admin]
address = "127.0.0.1:5003"
EOF
  htpasswd -cbB -C 5 "$behind/htpasswd" robot robot-password
  htpasswd -bB -C 5 "$behind/htpasswd" dev developer-password
}

second_start() {
  daemon_start second 60 second_answers "$BINARY" serve --config "$behind/gateway.toml"
  second_pid=${daemons[-1]}
}

second_answers() { curl --fail --silent --output /dev/null http://127.0.0.1:5003/readyz; }
ask_second() { curl --fail-with-body --silent --show-error --cacert "$second_ca" "$@"; }

tokens_start() {
  ask_second --output "$place/authority.pem" "https://$second/token/certificates"
  cat >"$place/tokens.yml" <<EOF
version: 0.1
log: { level: info }
storage: { filesystem: { rootdirectory: "$place/tokens" }, delete: { enabled: true } }
http: { addr: "$tokens", tls: { certificate: "$behind/certs/server.crt", key: "$behind/certs/server.key" } }
auth:
  token: { realm: "https://$second/token", service: "tokens.example", issuer: "dockgate", rootcertbundle: "$place/authority.pem" }
EOF
  daemon_start tokens 30 tokens_answer env -u REGISTRY_AUTH_FILE docker-registry serve "$place/tokens.yml"
}

tokens_answer() { [[ $(curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$second_ca" "https://$tokens/v2/") == 401 ]]; }

# upstream_file NAME URL LINE…
upstream_file() {
  mkdir -p "$gateway/upstreams"
  printf 'url = "https://%s"\nca = "%s"\n' "$2" "$second_ca" >"$gateway/upstreams/$1.toml"
  printf '%s\n' "${@:3}" >>"$gateway/upstreams/$1.toml"
}

upstreams_make() {
  local login=('username = "robot"' 'password_file = "robot"')
  printf robot-password >"$gateway/robot"
  upstream_file open "$second" 'kind = "mirror"'
  upstream_file behind "$second" 'kind = "mirror"' "${login[@]}"
  upstream_file second "$second" 'kind = "fronted"' "${login[@]}"
  # Their token service is another server, and its address is not a public one.
  local near='private_addresses = ["192.0.2.20"]'
  upstream_file tokens "$tokens" 'kind = "fronted"' "$near" "${login[@]}"
  upstream_file forward "$tokens" 'kind = "fronted"' "$near" 'authorization = "forward"' 'hosts = ["hub.example"]'
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["open/**"]
actions = ["pull"]

[[access]]
who = ["group:developers"]
repositories = ["behind/**", "second/**", "tokens/**", "forward/**"]
actions = ["pull", "push"]
'
}

# log_in NAME USER PASSWORD: of the gateway. podman does not log in where docker left a refresh token, so it must not see it.
log_in() {
  docker login --username "$2" --password-stdin "$1" <<<"$3"
  podman login --username "$2" --password-stdin "$1" <<<"$3"
}

# there NAME: the digest of a manifest of the second dockgate, asked directly.
there() {
  ask_second --user robot:robot-password --head "https://$second/v2/${1%:*}/manifests/${1##*:}" | tr -d '\r' |
    sed -n 's/^docker-content-digest: //Ip'
}

# ---- a second dockgate -----------------------------------------------------

docker_round_trip() {
  local pushed
  docker load --quiet --input "$images/single.tar"
  docker tag dockgate-test:single "$secure/$1"
  pushed=$(docker push "$secure/$1" | tee -a /dev/stderr | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p')
  docker image prune --all --force
  same "$pushed" "$(docker pull "$secure/$1" | tee -a /dev/stderr | sed -n 's/^Digest: //p')"
  same "$marker" "$(docker run --rm --network none "$secure/$1")"
}

docker_to_the_second() {
  docker_round_trip second/team/docker:1
  same "$(crane digest "$secure/second/team/docker:1")" "$(there team/docker:1)"
}

index_to_the_second() {
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/second/team/app:1"
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/second/public/app:1"
  same "$multi" "$(there team/app:1)"
  same "$multi" "$(there public/app:1)"
}

# What was pushed to it is pulled from it by another name, with the credentials of that.
mirror_of_the_second() {
  local blobs
  : >"$place/second.log"
  crane validate --remote "$secure/behind/team/app:1"
  podman pull "$secure/behind/team/app:1"
  same "$marker" "$(podman run --rm --network none "$secure/behind/team/app:1")"
  oras cp --from-ca-file "$ca" --to-oci-layout "$secure/behind/team/app:1" "$place/oras:1"
  blobs=$(sed -n 's/.* method=GET target=[^ ]*\/blobs\/\(sha256:[0-9a-f]*\)[^ ]* status=20[06] .*/\1/p' "$place/second.log" | sort)
  [[ -n $blobs ]] || fail 'the second sent no blob'
  same 0 "$(uniq --repeated <<<"$blobs" | wc -l)"
}

anyone_pulls_what_is_public() {
  docker logout "$secure"
  docker image prune --all --force
  same "$multi" "$(docker pull "$secure/open/public/app:1" | tee -a /dev/stderr | sed -n 's/^Digest: //p')"
  refused 'denied|unauthorized' docker pull "$secure/open/team/app:1"
  refused 'denied|unauthorized|no basic auth' docker pull "$secure/behind/team/app:1"
  log_in "$secure" dev developer-password
}

# With another realm all tokens end, also those that the gateway holds.
second_ends_all_tokens() {
  bounded crane ls "$secure/second/team/app" >"$place/listed"
  kill -TERM "$second_pid"
  await 60 gone "$second_pid"
  sed -i 's/^htpasswd/realm = "second"\nhtpasswd/' "$behind/gateway.toml"
  second_start
}

tokens_are_fetched_anew() {
  same "$(cat "$place/listed")" "$(crane ls "$secure/second/team/app")"
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/second/team/later:1"
  same "$multi" "$(there team/later:1)"
}

# ---- docker-registry with auth.token ---------------------------------------

docker_with_tokens() { docker_round_trip tokens/team/docker:1; }

others_with_tokens() {
  podman load --quiet --input "$images/single.tar"
  podman push --digestfile "$place/pushed" docker.io/library/dockgate-test:single "$secure/tokens/team/podman:1"
  podman rmi --all --force
  podman pull "$secure/tokens/team/podman:1"
  same "$(cat "$place/pushed")" "$(crane digest "$secure/tokens/team/podman:1")"
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$secure/tokens/team/skopeo:1"
  crane copy "$secure/tokens/team/skopeo:1" "$secure/tokens/team/crane:1"
  same "$multi" "$(crane digest "$secure/tokens/team/crane:1")"
  crane validate --remote "$secure/tokens/team/crane:1"
  oras cp --from-oci-layout "$images/oci:multi" --to-ca-file "$ca" "$secure/tokens/team/oras:1"
  same "$multi" "$(crane digest "$secure/tokens/team/oras:1")"
  same '1' "$(crane ls "$secure/tokens/team/crane")"
}

# robot may not write there, whatever the gateway allows.
upstream_refuses() {
  refused 'forbidden|denied' skopeo copy "oci:$images/oci:single" "docker://$secure/tokens/elsewhere/app:1"
  refused 'not for the credentials that we have' crane manifest "$secure/tokens/elsewhere/app:1"
  grep -q 'mend username and password_file in upstreams/tokens.toml' "$gateway/log" || fail 'the log does not say what to do'
}

# ---- authorization = "forward" ---------------------------------------------

# A login at the gateway is exchanged for a token there.
forwarded_logins() {
  log_in "$by_name" dev developer-password
  skopeo copy --all --preserve-digests "oci:$images/oci:multi" "docker://$by_name/team/forward:1"
  docker image prune --all --force
  same "$multi" "$(docker pull "$by_name/team/forward:1" | tee -a /dev/stderr | sed -n 's/^Digest: //p')"
  crane validate --remote "$by_name/team/forward:1"
}

# The gateway lets admin do all, but the second does not know that user.
forward_refuses_whom_it_does_not_know() {
  log_in "$by_name" admin "$password"
  refused 'denied|unauthorized|credentials' crane digest "$by_name/team/forward:1"
  refused 'denied|unauthorized|credentials' docker pull "$by_name/team/forward:1"
}

set_up() {
  upstreams_make
  second_make
  second_start
  tokens_start
  gateway_start
  user_add dev developer-password
  podman_settings
  container_storage
  engine_start
  clients_trust "$secure" "$by_name"
  log_in "$secure" dev developer-password
}

set_up
check 'docker: push to, pull from and run of a second dockgate' docker_to_the_second
check 'skopeo: a whole index to a second dockgate' index_to_the_second
check 'crane, podman and oras: a mirror of it; each blob is asked for once' mirror_of_the_second
check 'docker: what is public there without a login' anyone_pulls_what_is_public
check 'docker: push, pull and run, docker-registry with tokens' docker_with_tokens
check 'podman, skopeo, crane and oras: docker-registry with tokens' others_with_tokens
check 'what the upstream refuses is told' upstream_refuses
check 'forward: a login is exchanged for a token there' forwarded_logins
check 'forward: whom the upstream does not know is refused' forward_refuses_whom_it_does_not_know
second_ends_all_tokens
check 'tokens that ended before their time are fetched anew' tokens_are_fetched_anew
