#!/usr/bin/env bash
# The real docker-registry 0.9.1 behind the gateway: docker 1.3 and 1.5 (their calls, in their order, by curl), the v1 clients that
# can still be had, and the docker engine and podman of today, on one port at one time.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=v1_registry.sh
source "${BASH_SOURCE[0]%/*}/v1_registry.sh"

v1_clients=$tests/../.test/v1-clients
export DOCKER_CONFIG=$place/config REGISTRY_AUTH_FILE=$place/auth.json
mkdir -p "$place/images"
printf '{}' >"$REGISTRY_AUTH_FILE"

docker() { bounded docker "$@"; }
login() { docker login --username "$1" --password-stdin "${3:-$secure}" <<<"$2"; }

# It trusts what its requests brings along, and nothing else. What is mounted here is for this run alone.
registry_trusts_gateway() {
  local trusted=$tests/../.test/v1/lib/requests/cacert.pem
  cat "$trusted" "$ca" >"$place/cacert.pem"
  mount --bind "$place/cacert.pem" "$trusted"
}

# ---- docker 1.3 and 1.5 ------------------------------------------------------

version=1.5
base=https://$secure
agent() {
  case $version in
    1.3) printf 'docker/1.3.0 go/go1.3.3 git-commit/c78088f kernel/3.16.0 os/linux arch/amd64' ;;
    1.5) printf 'docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64' ;;
  esac
}

# As Go 1.4 speaks: TLS 1.2, ECDHE, AES-128-GCM, P-256; HTTP/1.1, a connection for each call.
old_docker() {
  curl --max-time "${patience:-60}" --silent --show-error --cacert "$ca" --http1.1 --tls-max 1.2 \
    --ciphers ECDHE-ECDSA-AES128-GCM-SHA256 --curves P-256 --header 'Connection: close' --header 'Expect:' "$@"
}

old_ping() {
  local ping=(--user-agent 'Go 1.1 package http' --output /dev/null --write-out '%{http_code}')
  if [[ $version == 1.5 ]]; then
    same 404 "$(old_docker "${ping[@]}" "$base/v2/")"
  fi
  same 200 "$(old_docker "${ping[@]}" --dump-header "$place/head" "$base/v1/_ping")"
  same false "$(head_of X-Docker-Registry-Standalone)"
}

# call STATUSES ARGUMENT…: one call with the token that the last index call gave, or without one as the user $as; its body goes to
# $place/body, its head to $place/head.
as=
token=
call() {
  local expected=$1 status who=()
  shift
  [[ -z $as ]] || who=(--user "$as")
  [[ -z $token ]] || who=(--header "Authorization: Token $token")
  status=$(old_docker --user-agent "$(agent)" "${who[@]}" --output "$place/body" --dump-header "$place/head" \
    --write-out '%{http_code}' "$@")
  [[ " $expected " == *" $status "* ]] || fail "expected $expected, got $status from $*: $(cat "$place/body")"
}

# The same as the user $as, whatever token there is; the token that it gives is said from then on.
index_call() {
  token=
  call "$@" --header 'X-Docker-Token: true' --header 'Content-Type: application/json'
  token=$(head_of X-Docker-Token)
  same "${base#*//}" "$(head_of X-Docker-Endpoints)"
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
  local repository=$base/v1/repositories/$1 tag=$2 id json layer
  shift 2
  old_ping
  index_call 200 --request PUT --data-binary "$(printf '%s\n' "$@" | jq -Rn '[inputs | {id: .}]')" "$repository/"
  for id in "$@"; do
    json=$place/images/$id.json layer=$place/images/$id.layer
    call 404 "$base/v1/images/$id/json"
    call 200 --header 'Content-Type: application/json' --request PUT --data-binary "@$json" "$base/v1/images/$id/json"
    # From standard input curl sends chunks, without a length.
    call 200 --upload-file - "$base/v1/images/$id/layer" <"$layer"
    call 200 --header "X-Docker-Checksum-Payload: sha256:$(payload_checksum "$json" "$layer")" --request PUT \
      "$base/v1/images/$id/checksum"
  done
  call 200 --header 'Content-Type: application/json' --request PUT --data-binary "\"$id\"" "$repository/tags/$tag"
  index_call 204 --request PUT --data-binary '[]' "$repository/images"
}

# old_pull REPOSITORY TAG ID…: these images must come, the base last, with the same bytes.
old_pull() {
  local repository=$base/v1/repositories/$1 tag=$2 top id size
  shift 2
  old_ping
  index_call 200 "$repository/images"
  call 200 "$repository/tags"
  top=$(jq -r --arg tag "$tag" '.[$tag]' "$place/body")
  call 200 "$base/v1/images/$top/ancestry"
  same "$*" "$(jq -r 'join(" ")' "$place/body")"
  for id in "$@"; do
    call 200 "$base/v1/images/$id/json"
    cmp "$place/body" "$place/images/$id.json"
    same "sha256:$(payload_checksum "$place/images/$id.json" "$place/images/$id.layer")" "$(head_of X-Docker-Checksum-Payload)"
    call 200 "$base/v1/images/$id/layer"
    cmp "$place/body" "$place/images/$id.layer"
    # A pull that broke off goes on where it did.
    size=$(stat --format %s "$place/body")
    call 206 --header "Range: bytes=7-$size" "$base/v1/images/$id/layer"
    cmp "$place/body" <(tail --bytes +8 "$place/images/$id.layer")
    call 416 --header "Range: bytes=$size-$size" "$base/v1/images/$id/layer"
  done
}

# old_round NAME: two images, pushed and pulled, by a user of some repositories.
old_round() {
  local bottom top as=dev:developer-password
  bottom=$(image_make "$1 base" '' -C "$images" payload)
  top=$(image_make "$1 top" "$bottom" -C "$images" marker)
  old_push "$1" 1.0 "$bottom" "$top"
  old_pull "$1" 1.0 "$top" "$bottom"
}

# old_rounds NAME: docker 1.3 and 1.5, over TLS and plain.
old_rounds() {
  local version base
  for version in 1.3 1.5; do
    for base in "https://$secure" "http://$plain"; do old_round "$1-$version-${base%%:*}"; done
  done
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
  local version base
  for version in 1.3 1.5; do
    for base in "https://$secure" "http://$plain"; do
      as=
      call 400 "${account[@]}" "$base/v1/users/"
      same '"Username or email already exists"' "$(cat "$place/body")"
      as="admin:$password"
      call 200 "$base/v1/users/"
      as=admin:wrong
      call 401 "$base/v1/users/"
      same 'Basic realm="dockgate"' "$(head_of WWW-Authenticate)"
    done
  done
}

new_login() {
  refused 'unauthorized|401' login admin 'not the password'
  login admin "$password"
}

# turns_since LINE: how often old and new took turns, as the gateway's log tells from that line on.
turns_since() {
  tail -n "+$1" "$gateway/log" | grep -o 'backend="[a-z]*"' | grep -E 'legacy|hosted' | uniq | wc -l
}

old_until_enough() {
  local number=0
  until [[ -e $place/enough ]]; do old_round "team/old-$((number += 1))"; done
}

# Each goes on until the two have taken turns often enough, however fast the one or the other is today.
both_at_one_time() {
  local rounds=0 turns=0 from old
  from=$(wc -l <"$gateway/log")
  trap 'touch "$place/enough"; wait' EXIT
  old_until_enough >"$place/old.log" 2>&1 &
  old=$!
  while [[ $rounds -lt 30 && $turns -le 20 ]]; do
    new_round "team/app:$((rounds += 1))"
    turns=$(turns_since "$from")
  done
  touch "$place/enough"
  wait "$old" || fail "docker 1.5: $(tail -n 3 "$place/old.log")"
  [[ $turns -gt 20 ]] || fail "they did not run at one time: $turns turns in $rounds rounds of docker of today"
}

one_name_is_two_things() {
  old_round team/both
  refused 'not found|manifest unknown' docker pull "$secure/team/both:1.0"
  new_round team/both:2.0
  as="admin:$password" token=
  call 200 "$base/v1/repositories/team/both/tags"
  same 1.0 "$(jq -r 'keys | join(" ")' "$place/body")"
}

# What anyone may pull, in both worlds.
public_ones() {
  local id as="admin:$password"
  id=$(image_make 'public' '' -C "$images" marker)
  old_push public/old-thing 1.0 "$id"
  new_round public/new-thing:1
}

# finds COMMAND…: the names that a search prints.
finds() { "$@" | tee -a /dev/stderr | awk 'NR > 1 { print $1 }' | sort | paste -sd' '; }

finds_nothing() {
  local found
  found=$(finds "$@")
  [[ -z $found ]] || fail "$* shows what is not for this caller: $found"
}

docker_search() {
  login admin "$password"
  same 'team/both' "$(finds docker search "$secure/both")"
  same 'public/new-thing public/old-thing' "$(finds docker search "$secure/thing")"
  [[ $(finds docker search "$secure/team/") == *'team/app'*'team/old-1'* ]] || fail "not both worlds"
  docker logout "$secure"
  same 'public/new-thing public/old-thing' "$(finds docker search "$secure/thing")"
  finds_nothing docker search "$secure/team/"
}

docker_search_plain() {
  same 'public/new-thing public/old-thing' "$(finds docker search "$plain/thing")"
  finds_nothing docker search "$plain/team/"
  login dev developer-password "$plain"
  same 'team/both' "$(finds docker search "$plain/both")"
  docker logout "$plain"
}

# It does not log in where docker left a refresh token, so it must not see docker's file.
podman() { DOCKER_CONFIG=$place/no-config bounded podman "$@"; }

# podman pulls v2 images alone, and says its password to v2 alone: refused by v1's search it asks for v2's list.
podman_search() {
  podman logout --all
  same "$secure/public/new-thing" "$(finds podman search "$secure/thing")"
  finds_nothing podman search "$secure/team/"
  podman login --username dev --password-stdin "$secure" <<<developer-password
  same "$secure/team/both" "$(finds podman search "$secure/both")"
  podman logout --all
}

podman_search_plain() {
  same "$plain/public/new-thing" "$(finds podman search --tls-verify=false "$plain/thing")"
  podman login --tls-verify=false --username dev --password-stdin "$plain" <<<developer-password
  same "$plain/team/both" "$(finds podman search --tls-verify=false "$plain/both")"
  podman logout --all
}

# npm's docker-registry-client, as a user and as nobody, over TLS and plain.
npm_pull() {
  NODE_PATH=$v1_clients/node_modules NODE_EXTRA_CA_CERTS=$ca bounded node "$tests/e2e/clients/v1/pull.js" "$@"
}

npm_client() {
  local name user host id
  for host in "$secure" "$plain"; do
    for name in 'team/both dev developer-password' public/old-thing; do
      read -r name user <<<"$name"
      rm -rf "$place/npm" && mkdir "$place/npm"
      # shellcheck disable=SC2086  # a user and a password, or nothing
      PLAIN=$([[ $host == "$plain" ]] && echo 1) npm_pull "$host/$name" 1.0 "$place/npm" $user >"$place/npm/ids"
      [[ -s $place/npm/ids ]] || fail "npm's client pulled nothing"
      while read -r id; do cmp "$place/npm/$id.layer" "$place/images/$id.layer"; done <"$place/npm/ids"
    done
  done
  refused 'unauthorized|401|authentication' npm_pull "$secure/team/both" 1.0 "$place/npm"
}

# PyPI's docker-registry-client says its password each time.
pypi_client() {
  local walk=("$v1_clients/python/bin/python" "$tests/e2e/clients/v1/walk.py" "https://$secure" "$ca") said
  said=$(bounded "${walk[@]}" team/both 1.0 admin "$password")
  printf '%s\n' "$said"
  grep -q '^repositories .*public/old-thing.* team/both' <<<"$said" || fail "it does not find the repositories"
  grep -q '^version 1.5.0$' <<<"$said" || fail "the tag does not tell who set it"
  grep -qE '^ancestry [0-9a-f]{64} [0-9a-f]{64}$' <<<"$said" || fail "it does not find what the image stands on"
  bounded "${walk[@]}" public/old-thing 1.0
  refused '401' bounded "${walk[@]}" team/both 1.0
}

# Of a layer of 2 GiB nothing is kept: it comes in chunks, of which nobody knows how many.
huge_layer() {
  local id json sum size=2147483648 before as=dev:developer-password patience=600
  id=$(image_make 'huge' '' -C "$images" marker)
  json=$place/images/$id.json
  before=$(peak)
  index_call 200 --request PUT --data-binary "[{\"id\":\"$id\"}]" "$base/v1/repositories/team/huge/"
  call 200 --header 'Content-Type: application/json' --request PUT --data-binary "@$json" "$base/v1/images/$id/json"
  head --bytes $size /dev/zero | call 200 --upload-file - "$base/v1/images/$id/layer"
  sum=$({ cat "$json"; printf '\n'; head --bytes $size /dev/zero; } | sha256sum | cut -d' ' -f1)
  call 200 --header "X-Docker-Checksum-Payload: sha256:$sum" --request PUT "$base/v1/images/$id/checksum"
  call 200 "$base/v1/images/$id/json"
  same $size "$(head_of X-Docker-Size)"
  old_docker --header "Authorization: Token $token" "$base/v1/images/$id/layer" | cmp - <(head --bytes $size /dev/zero)
  [[ $(($(peak) - before)) -lt 65536 ]] || fail "the gateway grew from $before to $(peak) KiB"
  rm -rf "$place/registry/images/$id"
}

# The most memory that the gateway ever had, in KiB.
peak() { awk '/^VmHWM:/ { print $2 }' "/proc/$(cat "$gateway/pid")/status"; }

deletion() {
  local as id
  old_round team/deleted
  id=$(jq -r .id "$(grep -l 'team/deleted top' "$place"/images/*.json)")
  as="admin:$password" token=
  call 200 --request DELETE "$base/v1/repositories/team/deleted/"
  as=dev:developer-password
  call 404 "$base/v1/images/$id/layer"
  call 404 "$base/v1/repositories/team/deleted/images"
}

refusals_as_v1_clients_print_them() {
  local id child
  id=$(jq -r .id "$(grep -l 'team/both top' "$place"/images/*.json)")
  as='' token=
  call 401 "$base/v1/images/$id/layer"
  jq -e '.error | test("log in")' "$place/body"
  same 1 "$(head_of WWW-Authenticate | wc -l)"
  # A user of other repositories gets no image by its id, whatever they say of it.
  as=stranger:strange-password
  call 404 "$base/v1/images/$id/layer"
  jq -e .error "$place/body"
  index_call 200 --request PUT --data-binary '[]' "$base/v1/repositories/strange/app/"
  call 404 "$base/v1/images/$id/layer"
  call 403 --request PUT --data-binary "\"$id\"" "$base/v1/repositories/strange/app/tags/mine"
  child=$(image_make 'child' "$id" -C "$images" marker)
  call 400 --request PUT --data-binary "@$place/images/$child.json" "$base/v1/images/$child/json"
  jq -e '.error | test("parent")' "$place/body"
  token=
  call 403 --request PUT --data-binary "[{\"id\":\"$id\"}]" "$base/v1/repositories/strange/app/"
  jq -e '.error | test("may pull")' "$place/body"
}

down_is_told() {
  await 30 healthy_peers 0
  as="admin:$password" token=
  call 200 "$base/v1/_ping"
  call 503 "$base/v1/repositories/team/both/tags"
  jq -e '.error | test("upstreams/legacy-v1.toml")' "$place/body"
  new_round team/app:meanwhile
}

back_again() {
  await 30 healthy_peers 1
  old_round team/again
}

its_index() {
  await 30 healthy_peers 1
  old_rounds team/indexed
  login dev developer-password
  same 'team/indexed-1.5-http team/indexed-1.5-https' "$(finds docker search "$secure/indexed-1.5")"
  # What was pushed when it was its own is still there.
  as=dev:developer-password
  index_call 200 "$base/v1/repositories/team/both/images"
}

more_configuration='[[access]]
who = ["user:stranger"]
repositories = ["strange/**"]
actions = ["*"]
'
upstream_is true
registry_start
gateway_start
user_add dev developer-password
user_add stranger strange-password
trusted
engine_start
login dev developer-password
check 'docker login of docker 1.3 and 1.5, over TLS and plain' old_login
check 'docker 1.3 and 1.5 push, pull and resume, over TLS and plain' old_rounds team/each
check 'docker login of today, on the same port' new_login
check 'docker 1.5 and docker of today push and pull at one time' both_at_one_time
check 'the same name in v1 and in v2' one_name_is_two_things
check 'what anyone may pull' public_ones
check 'docker search of today, logged in and out' docker_search
check 'docker search of today over plain HTTP' docker_search_plain
check 'podman search of today, logged in and out' podman_search
check 'podman search of today over plain HTTP' podman_search_plain
check "npm's docker-registry-client pulls" npm_client
check "PyPI's docker-registry-client reads and tags" pypi_client
check 'a layer of 2 GiB, in chunks' huge_layer
check 'a deleted repository is gone' deletion
check 'refusals are in the form that v1 clients print' refusals_as_v1_clients_print_them
login admin "$password"
registry_stop
check 'the v1 registry is down: v1 says so, v2 goes on' down_is_told
registry_start
check 'the v1 registry is up again: v1 goes on' back_again
check 'SIGTERM ends it' gateway_stops_cleanly
registry_stop
upstream_is false
gateway_start
registry_start STANDALONE=false INDEX_ENDPOINT="http://$plain"
check 'a registry whose index the gateway is' its_index
check 'refusals before it' refusals_as_v1_clients_print_them
check "npm's docker-registry-client pulls from it" npm_client
registry_stop
registry_trusts_gateway
registry_start STANDALONE=false INDEX_ENDPOINT="https://$local_name"
check 'it asks its index over TLS' old_round team/over-tls
check 'SIGTERM ends it, too' gateway_stops_cleanly
