#!/usr/bin/env bash
# trivy: pulls an image from the registry and lists what is in it. It has no list of vulnerabilities here, and asks for none.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/trivy:$PATH
export TRIVY_CACHE_DIR=$place/cache TRIVY_SKIP_VERSION_CHECK=true

packages() {
  bounded trivy image --image-src remote --format cyclonedx --offline-scan --output "$place/found.json" "${@:2}" "$1" &&
    jq -r '.components[] | select(.type == "library") | .name + " " + .version' "$place/found.json" &&
    jq -r '.metadata.component.properties[] | select(.name == "aquasecurity:trivy:RepoDigest").value | sub(".*@"; "")' "$place/found.json"
}

# Its own options, in place of docker's login.
by_options() {
  rm -f "$DOCKER_CONFIG/config.json"
  packages "$secure/team/packages:1" --username admin --password "$password"
  refused 'unauthorized|401' packages "$secure/team/packages:1" --username admin --password wrong
}

packages_checked
check 'by its own options for a login' by_options
