#!/usr/bin/env bash
# BuildKit, as docker buildx and others have it: images that it pushes and builds on, its cache in the registry, and mirrors, which it
# asks with ?ns=.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/buildkit:$PATH
export BUILDKIT_HOST=unix://$place/buildkitd.sock DOCKER_CONFIG=$place/config
export SSL_CERT_FILE=$place/trusted/ca.crt    # buildctl asks for the tokens
context=$place/context

buildctl() { bounded buildctl "$@"; }

# build OPTION…: builds what is in $context, in plain words.
build() {
  buildctl build --progress plain --frontend dockerfile.v0 --local "context=$context" --local "dockerfile=$context" "$@" 2>&1
}

push_to() { build --output "type=image,name=$1,push=true${2:+,$2}"; }

# dockerfile LINE…
dockerfile() {
  mkdir -p "$context"
  printf '%s\n' "$@" >"$context/Dockerfile"
}

forget_all() { buildctl prune --all >/dev/null; }
as() { docker_login "$DOCKER_CONFIG" "$@"; }
ask() { bounded curl --fail --silent --show-error --cacert "$ca" --user "admin:$password" "$@"; }
manifest() { ask --header 'Accept: application/vnd.oci.image.manifest.v1+json' --header 'Accept: application/vnd.docker.distribution.manifest.v2+json' \
  --header 'Accept: application/vnd.oci.image.index.v1+json' "https://$secure/v2/$1/manifests/$2"; }

# ---- what is there ---------------------------------------------------------

upstreams_make() {
  mirror_file hub "${as_hub[@]}"
  mirror_file corp 'namespaces = ["registry.corp.example"]'
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["docker.io/**", "corp/library/**"]
actions = ["pull"]
'
}

# One mirror is named by the host alone, so that ns= says what is meant, and one as the README has it.
buildkit_start() {
  cat >"$place/buildkitd.toml" <<EOF
root = "$place/buildkit"
[grpc]
address = ["$BUILDKIT_HOST"]
[worker.containerd]
enabled = false
[worker.oci]
enabled = true
networkMode = "host"
cgroupParent = ""
[registry."$secure"]
ca = ["$ca"]
[registry."docker.io"]
mirrors = ["$secure/docker.io"]
[registry."registry.corp.example"]
mirrors = ["$secure"]
EOF
  daemon_start buildkitd 60 buildkit_answers buildkitd --config "$place/buildkitd.toml"
}

buildkit_answers() { command buildctl debug workers; }

# ---- push and pull ---------------------------------------------------------

pushes_and_pulls() {
  as admin "$password"
  dockerfile 'FROM scratch' 'COPY payload /payload'
  cp "$images/payload" "$context/payload"
  push_to "$secure/team/app:1"
  forget_all
  rm "$context/payload"
  dockerfile "FROM $secure/team/app:1"
  rm -rf "$place/pulled"
  build --output "type=local,dest=$place/pulled"
  cmp "$images/payload" "$place/pulled/payload"
}

builds_on_what_was_pushed() {
  bounded skopeo copy --quiet --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:single" "docker://$secure/team/base:1"
  dockerfile "FROM $secure/team/base:1" 'RUN ["/bin/sh", "-c", "cat /etc/marker >/etc/seen"]'
  rm -rf "$place/built"
  build --output "type=local,dest=$place/built"
  same "$marker" "$(cat "$place/built/etc/seen")"
}

# An image with a configuration and no layer.
labels_only() {
  local types
  dockerfile 'FROM scratch' 'LABEL org.example.word="nothing but this"'
  for types in true false; do
    push_to "$secure/team/labels:$types" "oci-mediatypes=$types"
    same 0 "$(manifest team/labels "$types" | jq '.layers | length')"
    same 'nothing but this' "$(ask "https://$secure/v2/team/labels/blobs/$(manifest team/labels "$types" | jq -r .config.digest)" |
      jq -r '.config.Labels["org.example.word"]')"
  done
  forget_all
  dockerfile "FROM $secure/team/labels:true" 'LABEL org.example.more="and this"'
  push_to "$secure/team/labels:more"
  same 'and this nothing but this' "$(ask "https://$secure/v2/team/labels/blobs/$(manifest team/labels more | jq -r .config.digest)" |
    jq -r '.config.Labels | .["org.example.more"] + " " + .["org.example.word"]')"
}

several_platforms_and_attestations() {
  dockerfile 'FROM scratch' 'ARG TARGETARCH' "LABEL org.example.architecture=\$TARGETARCH"
  build --opt platform=linux/amd64,linux/arm64 --opt attest:provenance=mode=max --output "type=image,name=$secure/team/many:1,push=true"
  same 'amd64 arm64' "$(manifest team/many 1 | jq -r '.manifests[].platform.architecture' | grep -v unknown | sort | paste -sd' ')"
}

# ---- the cache -------------------------------------------------------------

# What the step writes is never the same, so only a step that is not run again leaves the same.
cache_there_and_back() {
  local as_image=$1 reference=$secure/team/cache:$1 first types
  dockerfile "FROM $secure/team/base:1 AS before" 'RUN ["/bin/sh", "-c", "cat /proc/sys/kernel/random/uuid >/etc/random"]' \
    'FROM scratch' 'COPY --from=before /etc/random /random'
  rm -rf "$place"/cached-*
  build --export-cache "type=registry,ref=$reference,mode=max,image-manifest=$as_image,oci-mediatypes=true" \
    --output "type=local,dest=$place/cached-first"
  first=$(cat "$place/cached-first/random")
  types=$(manifest team/cache "$as_image" | jq -r .mediaType)
  [[ $types == application/vnd.oci.image.$2.v1+json ]] || fail "the cache is $types"
  forget_all
  build --import-cache "type=registry,ref=$reference" --output "type=local,dest=$place/cached-second"
  same "$first" "$(cat "$place/cached-second/random")"
  forget_all
  build --output "type=local,dest=$place/cached-third"
  [[ $(cat "$place/cached-third/random") != "$first" ]] || fail 'the step was not run again without a cache: this shows nothing'
}

cache_as_an_index() { cache_there_and_back false index; }
cache_as_an_image() { cache_there_and_back true manifest; }

# ---- mirrors ---------------------------------------------------------------

# pulled_by NAME WHAT-THE-LOG-SAYS
pulled_by() {
  forget_all
  cold
  dockerfile "FROM $1"
  rm -rf "$place/mirrored"
  build --output "type=local,dest=$place/mirrored"
  same "$marker" "$(cat "$place/mirrored/etc/marker")"
  each_blob_once
  grep -q "$2" "$gateway/log" || fail "the gateway was not asked for $2"
}

mirror_by_namespace() { pulled_by registry.corp.example/library/app:1 'target="\?/v2/library/app/manifests/1?ns=registry.corp.example'; }
mirror_by_prefix() { pulled_by docker.io/library/app:1 '/v2/docker.io/library/app/manifests/'; }

# ---- refusals --------------------------------------------------------------

# buildkitd keeps tokens, so repositories that it was let into before say nothing here.
wrong_password() {
  bounded skopeo copy --quiet --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:single" "docker://$secure/team/other:1"
  as admin wrong
  dockerfile 'FROM scratch' 'COPY Dockerfile /'
  refused 'unauthorized|401' push_to "$secure/team/no:1"
  refused 'unauthorized|401' build --export-cache "type=registry,ref=$secure/team/no:cache"
  dockerfile "FROM $secure/team/other:1"
  refused 'unauthorized|401' build
}

no_right() {
  as dev developer-password
  dockerfile 'FROM scratch' 'COPY Dockerfile /'
  refused 'denied|403|insufficient_scope' push_to "$secure/elsewhere/app:1"
  refused 'denied|403|insufficient_scope' build --export-cache "type=registry,ref=$secure/elsewhere/cache:1"
  push_to "$secure/team/of-dev:1"
  same 0 "$(ask "https://$secure/v2/_catalog?n=1000" | jq '[.repositories[] | select(startswith("elsewhere/") or . == "team/no")] | length')"
}

upstreams_make
upstream_start
upstream_fill library/app:1
gateway_start
user_add dev developer-password
mkdir -p "$place/trusted"
cp "$ca" "$place/trusted/ca.crt"
buildkit_start
check 'push, and pull as a base' pushes_and_pulls
check 'a step runs on a base that is pulled' builds_on_what_was_pushed
check 'FROM scratch with labels and no layer' labels_only
check 'two platforms with attestations' several_platforms_and_attestations
check 'the cache there and back, as an index' cache_as_an_index
check 'the cache there and back, as an image (image-manifest=true)' cache_as_an_image
check 'a mirror by ns=' mirror_by_namespace
check 'a mirror by its prefix' mirror_by_prefix
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
