#!/usr/bin/env bash
# ko: builds a Go program into an image on a base, and pushes that with a list of what is in it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

built=$(realpath "${BASH_SOURCE[0]%/*}/../../.test/clients/ko")
PATH=$built:$PATH
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/trusted/ca.crt
export GOFLAGS=-buildvcs=false GOPROXY=off GOTOOLCHAIN=local GOCACHE=$built/go-build GOPATH=$place/go CGO_ENABLED=0
export KO_DEFAULTBASEIMAGE=$secure/team/base:1 KOCACHE=$place/ko-cache
platforms=linux/amd64,linux/arm64

crane() { bounded crane "$@"; }
# ko_build REPOSITORY OPTION…: prints the name of what it pushed.
ko_build() { (cd "$place/program" && KO_DOCKER_REPO=$secure/$1 bounded ko build --bare --platform "$platforms" "${@:2}" .); }
as() { docker_login "$DOCKER_CONFIG" "$@"; }

# Without any package, so that there is little to compile.
program() {
  mkdir -p "$place/program"
  printf 'module example.org/program\n\ngo 1.19\n' >"$place/program/go.mod"
  printf 'package main\n\nfunc main() { println("%s") }\n' "$marker" >"$place/program/main.go"
}

logs_in() {
  bounded ko login "$secure" --username admin --password-stdin <<<"$password"
}

builds_and_pushes() {
  local pushed architecture
  pushed=$(ko_build team/ko --tags 1,latest)
  same "${pushed#*@}" "$(crane digest "$secure/team/ko:1")"
  same 'amd64 arm64' "$(crane manifest "$pushed" | jq -r '.manifests[].platform.architecture' | sort | paste -sd' ')"
  crane validate --remote "$pushed"
  architecture=$(jq -r '.manifests[] | select(.annotations["org.opencontainers.image.ref.name"] == "single") | .platform.architecture' "$images/oci/index.json")
  mkdir -p "$place/root"
  crane export --platform "linux/$architecture" "$pushed" - | tar -x --directory "$place/root"
  same "$marker" "$("$place/root/ko-app/$(ls "$place/root/ko-app")" 2>&1)"
  same "$marker" "$(cat "$place/root/etc/marker")"
}

# The lists of contents are tags beside the image.
lists() { crane ls "$secure/team/ko" | grep -q '^sha256-[0-9a-f]*\.sbom$' || fail 'no list of what is in it'; }

base_of_somebody_else() {
  KO_DEFAULTBASEIMAGE=$secure/elsewhere/base:1 ko_build team/ko-elsewhere
  as dev developer-password
  KO_DEFAULTBASEIMAGE=$secure/elsewhere/base:1 refused 'denied|403|MANIFEST_UNKNOWN|NAME_UNKNOWN' ko_build team/ko-elsewhere
}

wrong_password() {
  as admin wrong
  refused 'unauthorized|401' ko_build team/no
}

no_right() {
  as dev developer-password
  refused 'denied|403' ko_build elsewhere/ko
  ko_build team/of-dev
}

gateway_start
user_add dev developer-password
mkdir -p "$place/trusted"
cp "$ca" "$SSL_CERT_FILE"
program
for base in team/base:1 elsewhere/base:1; do
  bounded skopeo copy --quiet --all --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$secure/$base"
done
check 'login' logs_in
check 'build on a base and push, for two architectures' builds_and_pushes
check 'the lists of what is in it are there' lists
check 'a base that one may not pull is refused' base_of_somebody_else
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
