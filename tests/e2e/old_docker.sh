#!/usr/bin/env bash
# docker 1.3.3, 1.5.0, 1.6.2 and 1.9.1 themselves (old_docker/build.sh) before the real docker-registry 0.9.1 and dockgate's own
# registry: their command lines, and their engines without what runs containers; of 1.9 what both do with images. Each has two
# engines, with images and a login of their own: one that pushes, and one that pulls what the other pushed.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=v1_registry.sh
source "${BASH_SOURCE[0]%/*}/v1_registry.sh"

old_dockers=$tests/../.test/old-docker
versions=(1.3 1.5)
schema_1_versions=(1.6 1.9)
by_name=hub.example:5000  # the gateway's name for all of the registry of schema 1
schema_1=127.0.0.1:5091

# old VERSION WHO ARGUMENT…: docker of this version, at the engine of this one.
old() {
  DOCKER_HOST=unix://$place/$1-$2.sock HOME=$place/$1-$2 bounded "$old_dockers/docker-$1" "${@:3}"
}

old_engine_answers() { curl --fail --silent --output /dev/null --max-time 5 --unix-socket "$socket" http://engine/_ping; }

# engine_start VERSION WHO [VARIABLE…]
engine_start() {
  local socket=$place/$1-$2.sock
  mkdir -p "$place/$1-$2"
  daemon_start "$1-$2" 60 old_engine_answers \
    env "${@:3}" "$old_dockers/docker-$1" -d -D -g "$place/$1-$2/images" -H "unix://$socket" --insecure-registry 127.0.0.0/8
}

# login VERSION WHO USER PASSWORD REGISTRY
login() { old "$1" "$2" login --username "$3" --password "$4" --email "$3@example.com" "$5"; }

# image_load VERSION NAME: loads an image of two layers, of which no other has the ids; prints the upper one's.
image_load() {
  local directory=$place/image below='' id layer
  rm -rf "$directory" && mkdir "$directory"
  for layer in payload marker; do
    id=$(sha256sum <<<"$2 $layer" | cut -d' ' -f1)
    mkdir "$directory/$id"
    printf 1.0 >"$directory/$id/VERSION"
    tar --create --file "$directory/$id/layer.tar" --directory "$images" "$layer"
    jq -cn --arg id "$id" --arg below "$below" '{id: $id} + (if $below == "" then {} else {parent: $below} end) +
      {created: "2015-02-10T19:10:00Z", docker_version: "1.5.0", architecture: "amd64", os: "linux"}' >"$directory/$id/json"
    below=$id
  done
  jq -cn --arg name "${2%:*}" --arg tag "${2##*:}" --arg id "$id" '{($name): {($tag): $id}}' >"$directory/repositories"
  tar --create --directory "$directory" . | old "$1" author load >&2
  printf '%s\n' "$id"
}

# same_image VERSION NAME ID: the image is there under this name, with this id and the layer that was pushed.
same_image() {
  same "$3" "$(old "$1" reader images --no-trunc --quiet "${2%:*}")"
  old "$1" reader save "$2" | tar --extract --to-stdout "$3/layer.tar" | tar --extract --to-stdout marker | cmp - "$images/marker"
}

# ---- the checks --------------------------------------------------------------

# each COMMAND…: with each version, over TLS and plain: COMMAND… VERSION REGISTRY
each() {
  local version host
  for version in "${versions[@]}"; do
    for host in "$secure" "$plain"; do "$@" "$version" "$host"; done
  done
}

logs_in() {
  refused 'wrong login|unauthorized|wrong user name' login "$1" author dev 'not the password' "$2"
  refused 'wrong login|unauthorized|wrong user name' login "$1" author nobody 'some password' "$2"
  login "$1" author dev developer-password "$2" | tee "$place/said"
  grep -q 'Login Succeeded' "$place/said"
  login "$1" reader reader reader-password "$2"
}

# What the system trusts is what login looks at, and nothing else does where certs.d has a CA.
needs_the_ca() {
  local version
  for version in "${versions[@]}"; do
    refused 'certificate|insecure-registry' old "$version" distrustful search "$secure/anything"
  done
  local name
  for name in "$secure" "$by_name"; do
    mkdir -p "/etc/docker/certs.d/$name"
    cp "$ca" "/etc/docker/certs.d/$name/ca.crt"
  done
  for version in "${versions[@]}"; do
    old "$version" distrustful search "$secure/anything"
    refused 'certificate' login "$version" distrustful dev developer-password "$secure"
  done
}

# repository VERSION REGISTRY: a name for this way through.
repository() { printf '%s/team/%s-%s\n' "$2" "$1" "${2##*:}"; }

push_and_pull() {
  local name id
  name=$(repository "$1" "$2"):1.0
  id=$(image_load "$1" "$name")
  same 2 "$(layers_sent_by old "$1" author push "$name")"
  old "$1" reader pull "$name"
  same_image "$1" "$name" "$id"
}

# layers_sent_by COMMAND…: how many layers came to the gateway meanwhile.
layers_sent_by() {
  local before
  before=$(layers_received)
  "$@" >&2
  printf '%d\n' $(($(layers_received) - before))
}

layers_received() { grep -cE ' method=PUT target=/v1/images/[0-9a-f]{64}/layer status=200 ' "$gateway/log" || true; }

pushes_again() {
  local name
  name=$(repository "$1" "$2")
  old "$1" author tag "$name:1.0" "$name:2.0"
  same 0 "$(layers_sent_by old "$1" author push "$name")"
  old "$1" reader pull --all-tags "$name"
  same '1.0 2.0' "$(old "$1" reader images "$name" | awk 'NR > 1 { print $2 }' | sort | paste -sd' ')"
}

# across_versions VERSION REGISTRY: what the other version pushed; the image has the same id everywhere.
across_versions() {
  local other name
  [[ $1 == 1.3 ]] && other=1.5 || other=1.3
  name=$(repository "$other" "$2"):1.0
  old "$1" author pull "$name"
  same "$(ids "$other" "$name")" "$(ids "$1" "$name")"
}

ids() { old "$1" author images --no-trunc --quiet "${2%:*}" | uniq; }

finds() { old "$1" author search "$2" | tee -a /dev/stderr | awk 'NR > 1 { print $1 }' | sort | paste -sd' '; }

# Until 1.6 docker says the login of Docker Hub to whatever it searches, so it finds what is for anyone.
searches() {
  local name=$2/public/$1-${2##*:}
  image_load "$1" "$name:1.0"
  old "$1" author push "$name"
  [[ " $(finds "$1" "$2/$1-50") " == *" public/$1-${2##*:} "* ]] || fail "what anyone may pull is not found"
  [[ $(finds "$1" "$2/$1-50") != *team/* ]] || fail "a search without a login finds what is not for anyone"
}

# The stranger has the image, from when it was theirs to pull; nobody can push it for others into a repository of their own.
stranger_gets_nothing() {
  local name
  name=$(repository "$1" "$2"):1.0
  login "$1" reader stranger strange-password "$2"
  refused 'not found|404' old "$1" reader pull "$name"
  refused 'may not push' old "$1" reader push "$name"
  old "$1" reader tag --force "$name" "$2/other/mine:1.0"
  refused 'may pull' old "$1" reader push "$2/other/mine:1.0"
  login "$1" reader reader reader-password "$2"
  refused 'may not' old "$1" reader push "$name"
}

logged_out() {
  local name
  name=$(repository "$1" "$2"):1.0
  old "$1" reader logout "$2"
  refused 'log in|authentication|unauthorized|not found' old "$1" reader pull "$name"
}

v2_is_not_seen() {
  refused 'not found|404' old 1.5 author pull "$secure/team/nothing-here:1"
}

# docker 1.6 to 1.9 is of the new world, but of schema 1. Where v2 does not have an image it asks v1.
of_schema_1() {
  local version host name
  for version in "${schema_1_versions[@]}"; do
    for host in "$secure" "$plain"; do
      refused 'unauthorized|401|incorrect' login "$version" author dev 'not the password' "$host"
      login "$version" author dev developer-password "$host"
      login "$version" reader reader reader-password "$host"
      name=$(repository 1.5 "$host"):1.0
      old "$version" author pull "$name"
      same "$(ids 1.5 "$name")" "$(ids "$version" "$name")"
      # The built-in registry does not keep schema 1.
      image_load "$version" "$host/team/refused-$version:1.0"
      refused 'error: 400|schema 1' old "$version" author push "$host/team/refused-$version:1.0"
    done
  done
}

# To a registry of the kind that they were made for.
through_to_schema_1() {
  local version name id
  for version in "${schema_1_versions[@]}"; do
    name=$by_name/team/app-$version:1.0
    login "$version" author dev developer-password "$by_name"
    login "$version" reader reader reader-password "$by_name"
    id=$(image_load "$version" "$name")
    old "$version" author push "$name"
    # That it is not in v1, where they look, too.
    curl --fail --silent "http://$schema_1/v2/team/app-$version/tags/list" | grep -q '"1.0"' || fail "it is not there"
    old "$version" reader pull "$name"
    # Since 1.8 the one who pulls names the images.
    [[ $version != 1.6 ]] || same_image "$version" "$name" "$id"
    [[ -n $(old "$version" reader images --no-trunc --quiet "${name%:*}") ]] || fail "nothing was pulled"
  done
}

schema_1_answers() { curl --fail --silent --output /dev/null "http://$schema_1/v2/"; }

schema_1_start() {
  cat >"$place/schema-1.yml" <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: "$place/schema-1"}}
http: {addr: "$schema_1"}
compatibility: {schema1: {enabled: true}}
EOF
  daemon_start schema-1 30 schema_1_answers docker-registry serve "$place/schema-1.yml"
  printf 'kind = "fronted"\nurl = "http://%s"\nhosts = ["%s"]\n' "$schema_1" "${by_name%:*}" >"$gateway/upstreams/behind.toml"
}

down_is_told() {
  await 30 healthy_peers 0
  local version
  for version in "${versions[@]}"; do
    refused '503|does not answer|not reachable|upstream' old "$version" author pull "$secure/team/$version-5000:1.0"
  done
}

its_index() {
  await 30 healthy_peers 1
  local name id version
  for version in "${versions[@]}" "${schema_1_versions[@]}"; do
    name=$secure/team/indexed-$version:1.0
    id=$(image_load "$version" "$name")
    old "$version" author push "$name"
    login "$version" reader reader reader-password "$secure"
    old "$version" reader pull "$name"
    same_image "$version" "$name" "$id"
    # What was pushed when it was its own index.
    old "$version" reader pull "$secure/team/1.5-5000:2.0"
  done
}

# The gateway is killed within a layer and comes again: the pull goes on in the middle. The registry is slow for that.
goes_on_where_it_broke_off() {
  local version name id pull layers
  for version in "${versions[@]}"; do
    id=$(image_load "$version" "$secure/team/broken-$version:1.0")
    old "$version" author push "$secure/team/broken-$version:1.0"
    login "$version" reader reader reader-password "$secure"
    printf '%s\n' "$id" >"$place/broken-$version"
  done
  gateway_stops_cleanly
  printf 'bytes_per_second = "1MiB"\n' >>"$gateway/upstreams/legacy-v1.toml"
  gateway_start
  for version in "${versions[@]}"; do
    name=$secure/team/broken-$version:1.0
    layers=$(layers_begun)
    old "$version" reader pull "$name" &
    pull=$!
    await 30 another_layer_begins || fail "no layer came"
    sleep 1
    kill -KILL "$(cat "$gateway/pid")"
    await 30 test -s "$gateway/exit"
    gateway_start
    wait "$pull" || fail "the pull did not go on"
    same_image "$version" "$name" "$(cat "$place/broken-$version")"
    grep -qE "method=GET target=/v1/images/[0-9a-f]{64}/layer status=206 .*docker/$version" "$gateway/log" || fail "it began anew"
  done
}

# As its engine says, once the head of an answer is there.
layers_begun() { grep -c 'server supports resume' "$place/$version-reader.log" || true; }
another_layer_begins() { [[ $(layers_begun) -gt $layers ]]; }

# Who asks for an account gets one, where the operator says so.
makes_accounts() {
  local version name
  for version in "${versions[@]}"; do
    login "$version" reader "new-$version" newcomers-password "$secure" | tee "$place/said"
    grep -q 'Account created' "$place/said" || fail "no account was made"
    grep -q "^new-$version:" "$gateway/htpasswd" || fail "the account is not in htpasswd"
    old "$version" reader pull "$secure/public/$version-5000:1.0"
    refused 'not found|404' old "$version" reader pull "$secure/team/$version-5000:1.0"
    refused 'wrong login|wrong user name' login "$version" reader "new-$version" 'not the password' "$secure"
  done
}

more_configuration='[[access]]
who = ["group:developers"]
repositories = ["public/**", "behind/**"]
actions = ["pull", "push"]

[[access]]
who = ["user:reader"]
repositories = ["team/**", "behind/**"]
actions = ["pull"]

[[access]]
who = ["user:stranger"]
repositories = ["other/**"]
actions = ["*"]
'
upstream_is true
registry_start
schema_1_start
gateway_start
user_add dev developer-password
user_add reader reader-password
user_add stranger strange-password
for version in "${versions[@]}" 1.6; do
  engine_start "$version" author SSL_CERT_FILE="$ca"
  engine_start "$version" reader SSL_CERT_FILE="$ca"
  engine_start "$version" distrustful SSL_CERT_FILE=/dev/null
done
for who in author reader; do
  mkdir "$place/1.9-$who"  # where it keeps what an engine would
done
check 'nothing works without the CA, and all but login with it in certs.d' needs_the_ca
check 'login' each logs_in
check 'push and pull of an image' each push_and_pull
check 'what is there is not uploaded again; all tags are pulled' each pushes_again
check 'each pulls what the other pushed' each across_versions
check 'search finds what anyone may pull' each searches
check 'a stranger pulls and pushes nothing' each stranger_gets_nothing
check 'logged out' each logged_out
check 'what is not there' v2_is_not_seen
check 'docker 1.6 and 1.9 log in, and pull what only v1 has' of_schema_1
check 'docker 1.6 and 1.9 push to and pull from a registry behind that keeps schema 1' through_to_schema_1
registry_stop
check 'the registry is down' down_is_told
check 'SIGTERM ends it' gateway_stops_cleanly
upstream_is false
printf 'clients = "docker < 1.10"\n' >>"$gateway/upstreams/legacy-v1.toml"
export DOCKGATE__IDENTITY__REGISTRATION=true
gateway_start
registry_start STANDALONE=false INDEX_ENDPOINT="http://$plain"
check 'a registry whose index the gateway is, for docker 1.6 and 1.9 too' its_index
check 'docker login makes accounts where it may' makes_accounts
check 'a pull goes on where it broke off' goes_on_where_it_broke_off
