# shellcheck shell=bash
# What those that look into images do alike: an image that says which packages it has, and what they find there. Each has its own
# `packages NAME OPTION…`, which tells name and version of each package, and the digest that it came from. That is one command to the
# shell, since refused() knows no set -e.
# shellcheck disable=SC2154  # lib.sh sets password and ca when the gateway starts

: "${place:?source lib.sh first}" "${secure:?}"

export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt

as() { docker_login "$DOCKER_CONFIG" "$@"; }

# packages_push NAME: as admin, whose login is in $DOCKER_CONFIG.
packages_push() {
  local root=$place/root
  mkdir -p "$root/etc" "$root/lib/apk/db"
  printf 'ID=alpine\nVERSION_ID=3.20.0\nNAME="Alpine Linux"\n' >"$root/etc/os-release"
  printf '3.20.0\n' >"$root/etc/alpine-release"
  printf 'C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=\nP:dockgate-thing\nV:1.2.3-r0\nA:x86_64\nS:1\nI:1\nT:a thing\nU:https://example.org\nL:MIT\no:dockgate-thing\nm:A <a@example.org>\n\n' \
    >"$root/lib/apk/db/installed"
  tar --create --file "$place/packages.tar" --directory "$root" .
  bounded crane append --new_layer "$place/packages.tar" --new_tag "$1"
}

finds_the_package() {
  same "dockgate-thing 1.2.3-r0 $(bounded crane digest "$1")" "$(packages "$1" | paste -sd' ')"
}

without_a_login() {
  as admin "$password"
  packages_push "$secure/public/packages:1"
  rm "$DOCKER_CONFIG/config.json"
  finds_the_package "$secure/public/packages:1"
  refused 'unauthorized|401' packages "$secure/team/packages:1"
}

wrong_password() {
  as admin wrong
  refused 'unauthorized|401' packages "$secure/team/packages:1"
}

no_right() {
  as admin "$password"
  packages_push "$secure/elsewhere/packages:1"
  as dev developer-password
  finds_the_package "$secure/team/packages:1"
  refused 'denied|403|MANIFEST_UNKNOWN|NAME_UNKNOWN' packages "$secure/elsewhere/packages:1"
}

# All of that, from the start of the gateway on.
packages_checked() {
  gateway_start
  user_add dev developer-password
  cp "$ca" "$SSL_CERT_FILE"
  as admin "$password"
  packages_push "$secure/team/packages:1" >"$place/set-up.log" 2>&1 || { cat "$place/set-up.log"; exit 1; }
  check 'pulls and finds the package' finds_the_package "$secure/team/packages:1"
  check 'without a login what is public, and nothing else' without_a_login
  check 'a wrong password is refused' wrong_password
  check 'no right is refused' no_right
}
