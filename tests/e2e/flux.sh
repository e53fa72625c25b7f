#!/usr/bin/env bash
# flux: what it applies to clusters, as artifacts.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/flux:$PATH
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt
artifact=oci://$secure/team/flux

# flux ARGUMENT…, as admin or as $as, by its own option.
as=
flux() {
  local login=${as:-admin $password}
  bounded flux "$@" --creds "${login% *}:${login#* }"
}

push() { flux push artifact "$1" --path "$place/tree" --source https://example.org/tree --revision "main@sha1:$2"; }

pushes_and_pulls() {
  push "$artifact:1" 1111111111111111111111111111111111111111
  mkdir -p "$place/pulled"
  flux pull artifact "$artifact:1" --output "$place/pulled"
  diff -r "$place/tree" "$place/pulled"
  flux diff artifact "$artifact:1" --path "$place/tree"
}

lists_and_tags() {
  printf '# more\n' >>"$place/tree/map.yaml"
  push "$artifact:2" 2222222222222222222222222222222222222222
  flux tag artifact "$artifact:2" --tag latest
  same '1 2 latest' "$(flux list artifacts "$artifact" | awk 'NR > 1 { sub(/.*:/, "", $1); print $1 }' | sort | paste -sd' ')"
  refused 'differ|diff' flux diff artifact "$artifact:1" --path "$place/tree"
}

by_dockers_login() {
  docker_login "$DOCKER_CONFIG" admin "$password"
  bounded flux pull artifact "$artifact:1" --output "$place/pulled"
  rm "$DOCKER_CONFIG/config.json"
  refused 'unauthorized|401' bounded flux pull artifact "$artifact:1" --output "$place/pulled"
}

wrong_password() {
  as='admin wrong' refused 'unauthorized|401' push "$artifact:no" 3333333333333333333333333333333333333333
  as='admin wrong' refused 'unauthorized|401' flux pull artifact "$artifact:1" --output "$place/pulled"
  as='admin wrong' refused 'unauthorized|401' flux list artifacts "$artifact"
}

no_right() {
  as='dev developer-password' refused 'denied|403' push "oci://$secure/elsewhere/flux:1" 4444444444444444444444444444444444444444
  as='dev developer-password' push "oci://$secure/team/of-dev:1" 4444444444444444444444444444444444444444
}

gateway_start
user_add dev developer-password
cp "$ca" "$SSL_CERT_FILE"
mkdir -p "$place/tree"
printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: map\ndata:\n  marker: "%s"\n' "$marker" >"$place/tree/map.yaml"
check 'push, pull and compare' pushes_and_pulls
check 'list and tag' lists_and_tags
check "by docker's login" by_dockers_login
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
