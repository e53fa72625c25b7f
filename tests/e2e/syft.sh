#!/usr/bin/env bash
# syft: pulls an image from the registry and lists what is in it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=packages.sh
source "${BASH_SOURCE[0]%/*}/packages.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/syft:$PATH
export SYFT_CHECK_FOR_APP_UPDATE=false

packages() {
  bounded syft scan "registry:$1" --output json >"$place/found.json" &&
    jq -r '.artifacts[] | .name + " " + .version' "$place/found.json" &&
    jq -r .source.metadata.manifestDigest "$place/found.json"
}

packages_checked
