#!/usr/bin/env bash
# The real docker-registry 0.9.1 behind the gateway: docker 1.5 (its calls, in its order, by curl) pushes and pulls v1
# images, and the docker engine of today v2 images, on one port at one time.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

tests=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
v1_port=5002
agent='docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64'
export DOCKER_CONFIG=$place/config REGISTRY_AUTH_FILE=$place/auth.json
mkdir -p "$gateway/upstreams" "$place/images"
cat >"$gateway/upstreams/legacy-v1.toml" <<EOF
kind = "legacy"
peers = ["http://127.0.0.1:$v1_port"]
health = { interval = "1s" }
EOF

docker() { bounded docker "$@"; }
login() { docker login --username "$1" --password-stdin "$secure" <<<"$2"; }

# ---- the v1 registry ---------------------------------------------------------

registry_answers() { curl --fail --silent --output /dev/null "http://127.0.0.1:$v1_port/v1/_ping"; }

registry_start() {
  daemon_start registry 60 registry_answers "$tests/v1/run.sh" "$tests/../.test/v1" "$v1_port" "$place/registry"
  registry=${daemons[-1]}
}

# ---- docker 1.5 --------------------------------------------------------------

# As Go 1.4 speaks: TLS 1.2, ECDHE, AES-128-GCM, P-256; HTTP/1.1, a connection for each call.
old_docker() {
  bounded curl --silent --show-error --cacert "$ca" --http1.1 --tls-max 1.2 --ciphers ECDHE-ECDSA-AES128-GCM-SHA256 \
    --curves P-256 --header 'Connection: close' --header 'Expect:' "$@"
}

old_ping() {
  local ping=(--user-agent 'Go 1.1 package http' --output /dev/null --write-out '%{http_code}')
  same 404 "$(old_docker "${ping[@]}" "https://$secure/v2/")"
  same 200 "$(old_docker "${ping[@]}" "https://$secure/v1/_ping")"
  same 200 "$(old_docker "${ping[@]}" "https://$secure/v1/_ping")"
}

# call STATUSES ARGUMENT…: one call, as the user $as; its body goes to $place/body, its head to $place/head.
as=
call() {
  local expected=$1 status who=()
  shift
  [[ -z $as ]] || who=(--user "$as")
  status=$(old_docker --user-agent "$agent" "${who[@]}" --output "$place/body" --dump-header "$place/head" \
    --write-out '%{http_code}' "$@")
  [[ " $expected " == *" $status "* ]] || fail "expected $expected, got $status from $*: $(cat "$place/body")"
}

head_of() { tr -d '\r' <"$place/head" | sed -n "s/^$1: //Ip"; }

# image_make NAME PARENT FILE…: a layer of the files, and the JSON that docker 1.5 wrote; prints the id.
image_make() {
  local name=$1 parent=$2 id
  shift 2
  id=$(sha256sum <<<"$name" | cut -d' ' -f1)
  tar --create --gzip --file "$place/images/$id.layer" "$@"
  jq -cn --arg id "$id" --arg parent "$parent" --arg name "$name" '{id: $id} + (if $parent == "" then {} else {parent: $parent} end) +
    {comment: $name, created: "2015-02-10T19:10:00Z", docker_version: "1.5.0", architecture: "amd64", os: "linux", Size: 1}' \
    >"$place/images/$id.json"
  printf '%s\n' "$id"
}

payload_checksum() { { cat "$1"; printf '\n'; cat "$2"; } | sha256sum | cut -d' ' -f1; }

# old_push REPOSITORY TAG ID…: the base first.
old_push() {
  local repository=https://$secure/v1/repositories/$1 tag=$2 id json layer
  shift 2
  old_ping
  call '200 201' --header 'X-Docker-Token: true' --header 'Content-Type: application/json' --request PUT --data-binary '[]' \
    "$repository/"
  same "$secure" "$(head_of X-Docker-Endpoints)"
  for id in "$@"; do
    json=$place/images/$id.json layer=$place/images/$id.layer
    call 404 "https://$secure/v1/images/$id/json"
    call 200 --header 'Content-Type: application/json' --request PUT --data-binary "@$json" "https://$secure/v1/images/$id/json"
    # From standard input curl sends chunks, without a length.
    call 200 --upload-file - "https://$secure/v1/images/$id/layer" <"$layer"
    call 200 --header "X-Docker-Checksum-Payload: sha256:$(payload_checksum "$json" "$layer")" --request PUT \
      "https://$secure/v1/images/$id/checksum"
  done
  call '200 201' --header 'Content-Type: application/json' --request PUT --data-binary "\"$id\"" "$repository/tags/$tag"
  call 204 --header 'Content-Type: application/json' --request PUT --data-binary '[]' "$repository/images"
}

# old_pull REPOSITORY TAG ID…: these images must come, the base last, with the same bytes.
old_pull() {
  local repository=https://$secure/v1/repositories/$1 tag=$2 top id
  shift 2
  old_ping
  call 200 --header 'X-Docker-Token: true' "$repository/images"
  call 200 "$repository/tags"
  top=$(jq -r --arg tag "$tag" '.[$tag]' "$place/body")
  call 200 "https://$secure/v1/images/$top/ancestry"
  same "$*" "$(jq -r 'join(" ")' "$place/body")"
  for id in "$@"; do
    call 200 "https://$secure/v1/images/$id/json"
    cmp "$place/body" "$place/images/$id.json"
    same "sha256:$(payload_checksum "$place/images/$id.json" "$place/images/$id.layer")" "$(head_of X-Docker-Checksum-Payload)"
    call 200 "https://$secure/v1/images/$id/layer"
    cmp "$place/body" "$place/images/$id.layer"
  done
}

# old_round NAME: two images, pushed and pulled.
old_round() {
  local base top as="admin:$password"
  base=$(image_make "$1 base" '' -C "$images" payload)
  top=$(image_make "$1 top" "$base" -C "$images" marker)
  old_push "$1" 1.0 "$base" "$top"
  old_pull "$1" 1.0 "$top" "$base"
}

# ---- docker of today ---------------------------------------------------------

trusted() {
  mkdir -p "/etc/docker/certs.d/$secure" "/etc/containers/certs.d/$secure"
  cp "$ca" "/etc/docker/certs.d/$secure/ca.crt"
  cp "$ca" "/etc/containers/certs.d/$secure/ca.crt"
}

# new_round NAME: the test image under this name; the digest that is pulled is the one that was pushed.
new_round() {
  local digest
  docker load --quiet --input "$images/single.tar"
  docker tag dockgate-test:single "$secure/$1"
  digest=$(docker push "$secure/$1" | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p')
  docker image rm "$secure/$1" dockgate-test:single
  docker image prune --force --all
  same "$digest" "$(docker pull "$secure/$1" | sed -n 's/^Digest: //p')"
  same "$marker" "$(docker run --rm --network none "$secure/$1")"
}

# ---- the checks --------------------------------------------------------------

old_login() {
  local account=(--header 'Content-Type: application/json' --data '{"username":"admin","password":"x","email":"a@b.c"}')
  call 401 "${account[@]}" "https://$secure/v1/users/"
  same 'Basic realm="dockgate"' "$(head_of WWW-Authenticate)"
  as="admin:$password"
  call 200 "https://$secure/v1/users/"
  as=admin:wrong
  call 401 "https://$secure/v1/users/"
}

new_login() {
  refused 'unauthorized|401' login admin 'not the password'
  login admin "$password"
}

both_at_one_time() {
  local rounds=0 turns
  trap wait EXIT
  (for number in 1 2 3; do new_round "team/app:$number"; done) >"$place/new.log" 2>&1 &
  while kill -0 $! 2>/dev/null; do
    rounds=$((rounds + 1))
    old_round "team/old-$rounds"
  done
  wait $! || fail "docker of today: $(tail -n 3 "$place/new.log")"
  # The gateway's log tells that they took turns.
  turns=$(grep -o 'backend="[a-z]*"' "$gateway/log" | grep -E 'legacy|hosted' | uniq | wc -l)
  [[ $turns -gt 10 ]] || fail "they did not run at one time: $rounds rounds of docker 1.5, $turns turns"
}

one_name_is_two_things() {
  old_round team/both
  refused 'not found|manifest unknown' docker pull "$secure/team/both:1.0"
  new_round team/both:2.0
  as="admin:$password"
  call 200 "https://$secure/v1/repositories/team/both/tags"
  same 1.0 "$(jq -r 'keys | join(" ")' "$place/body")"
}

docker_search() {
  docker search "$secure/old-1" | tee /dev/stderr | grep -q 'team/old-1' || fail "docker search does not find it"
}

# It does not log in where docker left a refresh token, so it must not see docker's file.
podman() { DOCKER_CONFIG=$place/no-config bounded podman "$@"; }

# podman says its password to v2 only, so it sees v1's list only where anyone may.
podman_search() {
  podman login --username admin --password-stdin "$secure" <<<"$password"
  podman search "$secure/both" | tee /dev/stderr | grep -q 'team/both' || fail "podman search does not find it"
  [[ -z $(podman search "$secure/old-1") ]] || fail "podman search shows v1 images without having said a password"
}

refusals_as_v1_clients_print_them() {
  local id
  id=$(jq -r .id "$(grep -l 'team/both top' "$place"/images/*.json)")
  call 401 "https://$secure/v1/images/$id/layer"
  jq -e '.error | test("log in")' "$place/body"
  same 1 "$(head_of WWW-Authenticate | wc -l)"
  # Images name no repository: a user of some repositories may not read them.
  as=dev:developer-password
  call 200 "https://$secure/v1/repositories/team/both/tags"
  call 404 "https://$secure/v1/images/$id/layer"
  jq -e .error "$place/body"
}

down_is_told() {
  await 30 metric 0
  call 503 "https://$secure/v1/_ping"
  jq -e '.error | test("upstreams/legacy-v1.toml")' "$place/body"
  new_round team/app:meanwhile
}

metric() { curl --silent "http://$admin/metrics" | grep -q "^dockgate_upstream_healthy_peers{upstream=\"legacy-v1\"} $1\$"; }

back_again() {
  await 30 metric 1
  old_round team/again
}

registry_start
gateway_start
user_add dev developer-password
trusted
engine_start
check 'docker login of docker 1.5' old_login
check 'docker login of today, on the same port' new_login
check 'docker 1.5 and docker of today push and pull at one time' both_at_one_time
check 'the same name in v1 and in v2' one_name_is_two_things
check 'docker search of today finds v1 images' docker_search
check 'podman search finds v2 images' podman_search
check 'refusals are in the form that v1 clients print' refusals_as_v1_clients_print_them
kill -TERM "$registry"
await 30 gone "$registry"
check 'the v1 registry is down: v1 says so, v2 goes on' down_is_told
registry_start
check 'the v1 registry is up again: v1 goes on' back_again
check 'SIGTERM ends it' gateway_stops_cleanly
