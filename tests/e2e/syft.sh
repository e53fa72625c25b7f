#!/usr/bin/env bash
# syft: pulls an image from the registry and lists what is in it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/syft:$PATH
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt SYFT_CHECK_FOR_APP_UPDATE=false

as() { docker_login "$DOCKER_CONFIG" "$@"; }
# packages NAME: name and version of each, and the digest that it came from. One command to the shell, since refused() knows no set -e.
packages() {
  bounded syft scan "registry:$1" --output json >"$place/found.json" &&
    jq -r '.artifacts[] | .name + " " + .version' "$place/found.json" &&
    jq -r .source.metadata.manifestDigest "$place/found.json"
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

gateway_start
user_add dev developer-password
cp "$ca" "$SSL_CERT_FILE"
as admin "$password"
packages_push "$secure/team/packages:1" >"$place/set-up.log" 2>&1 || { cat "$place/set-up.log"; exit 1; }
check 'pulls and finds the package' finds_the_package "$secure/team/packages:1"
check 'without a login what is public, and nothing else' without_a_login
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
