#!/usr/bin/env bash
# trivy: pulls an image from the registry and lists what is in it. It has no list of vulnerabilities here, and asks for none.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/trivy:$PATH
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt TRIVY_CACHE_DIR=$place/cache TRIVY_SKIP_VERSION_CHECK=true

as() { docker_login "$DOCKER_CONFIG" "$@"; }
# packages NAME OPTION…: name and version of each, and the digest that it came from. One command to the shell, since refused() knows no set -e.
packages() {
  bounded trivy image --image-src remote --format cyclonedx --offline-scan --output "$place/found.json" "${@:2}" "$1" &&
    jq -r '.components[] | select(.type == "library") | .name + " " + .version' "$place/found.json" &&
    jq -r '.metadata.component.properties[] | select(.name == "aquasecurity:trivy:RepoDigest").value | sub(".*@"; "")' "$place/found.json"
}

finds_the_package() {
  same "dockgate-thing 1.2.3-r0 $(bounded crane digest "$1")" "$(packages "$@" | paste -sd' ')"
}

without_a_login() {
  as admin "$password"
  packages_push "$secure/public/packages:1"
  rm "$DOCKER_CONFIG/config.json"
  finds_the_package "$secure/public/packages:1"
  refused 'unauthorized|401' packages "$secure/team/packages:1"
}

# Its own options, in place of docker's login.
by_options() {
  packages "$secure/team/packages:1" --username admin --password "$password"
  refused 'unauthorized|401' packages "$secure/team/packages:1" --username admin --password wrong
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
check 'by its own options for a login' by_options
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
