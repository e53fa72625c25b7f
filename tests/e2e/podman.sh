#!/usr/bin/env bash
# podman as root, with storage of its own and the gateway's CA in /etc/containers/certs.d.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export REGISTRY_AUTH_FILE=$place/auth.json
private=$secure/team/app
podman_settings
container_storage

podman() { bounded podman "$@"; }
login() { podman login --username "$1" --password-stdin "$2" <<<"$3"; }
load() { podman load --quiet --input "$images/single.tar"; }

push() {
  podman tag docker.io/library/dockgate-test:single "$1"
  podman push --digestfile "$place/pushed" "${@:2}" "$1"
}

round_trip() {
  load
  push "$@"
  podman rmi --all --force
  podman pull "$1"
  same "$(cat "$place/pushed")" "$(podman image inspect --format '{{.Digest}}' "$1")"
  same "$marker" "$(podman run --rm --network none "$1")"
}

needs_the_ca() {
  refused 'x509|certificate' login admin "$secure" "$password"
  mkdir -p "/etc/containers/certs.d/$secure" "/etc/containers/certs.d/$local_name"
  cp "$ca" "/etc/containers/certs.d/$secure/ca.crt"
  cp "$ca" "/etc/containers/certs.d/$local_name/ca.crt"
  login admin "$secure" "$password"
}

wrong_password() { refused 'invalid username/password|unauthorized|401' login admin "$secure" 'not the password'; }
by_the_name_localhost() {
  login admin "$local_name" "$password"
  round_trip "$local_name/team/local:1"
}

logged_out_may_nothing_private() {
  podman logout "$secure"
  load
  refused 'denied|unauthorized|authentication required' podman pull "$private:1"
  podman tag docker.io/library/dockgate-test:single "$private:2"
  refused 'denied|unauthorized|authentication required' podman push "$private:2"
}

public_image_without_login() {
  login admin "$secure" "$password"
  load
  push "$secure/public/app:1"
  podman rmi --all --force
  podman logout "$secure"
  podman pull "$secure/public/app:1"
  same "$marker" "$(podman run --rm --network none "$secure/public/app:1")"
}

# The way registries.conf says that a registry speaks plain HTTP.
over_plain_http() {
  printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$plain" >"$place/registries.conf"
  export CONTAINERS_REGISTRIES_CONF=$place/registries.conf
  login admin "$plain" "$password"
  round_trip "$plain/team/plain:1"
  podman logout "$plain"
}

search_finds() {
  login admin "$secure" "$password"
  podman search "$secure/team" | tee "$place/found"
  grep -q "$private" "$place/found" || fail "the search does not list $private"
}

gateway_start
check 'login fails without the CA and works with it in certs.d' needs_the_ca
check 'a wrong password is told so' wrong_password
check 'push, pull and run over TLS; the digests are equal' round_trip "$private:1"
check 'push and pull the docker format' round_trip "$secure/team/schema2:1" --format v2s2
check 'push, pull and run by the name localhost' by_the_name_localhost
check 'search lists what the user may see' search_finds
check 'logged out, private images can neither be pulled nor pushed' logged_out_may_nothing_private
check 'a public image is pulled and run without a login' public_image_without_login
check 'login, push, pull and run over plain HTTP' over_plain_http
