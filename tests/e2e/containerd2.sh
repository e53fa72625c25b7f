#!/usr/bin/env bash
# containerd 2: what containerd.sh does with Debian's, then what is new: the daemon itself, not ctr, pulls and pushes (the transfer
# service), and a mirror that it asks with ?ns=.
PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/containerd2:$PATH
# shellcheck source=containerd.sh
source "${BASH_SOURCE[0]%/*}/containerd.sh"

mirror_make() {
  mirror_file hub "${as_hub[@]}"
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["docker.io/**"]
actions = ["pull"]
'
}

version() { command ctr --address "$socket" version | sed -n '/^Server/,$s/.*Version: *v\{0,1\}//p'; }

is_new_enough() {
  same 2.3 "$(printf '%s\n' 2.3 "$(version)" | sort --version-sort | head -n 1)"
}

# As before 2.0: ctr itself.
by_the_client() {
  ctr images push --local --hosts-dir "$place/hosts" --user "admin:$password" "$secure/team/local:1" "$private"
  ctr images pull --local --hosts-dir "$place/hosts" --user "admin:$password" --all-platforms "$secure/team/local:1"
  same "$multi" "$(image_digest "$secure/team/local:1")"
}

mirror_by_namespace() {
  hosts_file docker.io https://docker.io "https://$secure"
  cold
  forget_images
  ctr images pull --hosts-dir "$place/hosts" --all-platforms docker.io/library/app:1
  same "$multi" "$(image_digest docker.io/library/app:1)"
  same "$marker" "$(ctr run --rm docker.io/library/app:1 e2e-mirror)"
  each_blob_once
  grep -q '/v2/library/app/manifests/1?ns=docker.io' "$gateway/log" || fail 'it was not asked with ?ns='
}

no_right() {
  refused 'denied|403' ctr images push --hosts-dir "$place/hosts" --user dev:developer-password "$secure/elsewhere/app:1" "$private"
  refused 'denied|403|not found' ctr images pull --hosts-dir "$place/hosts" --user dev:developer-password "$secure/elsewhere/app:1"
  ctr images push --hosts-dir "$place/hosts" --user dev:developer-password "$secure/team/of-dev:1" "$private"
}

gateway_stops_cleanly
mirror_make
upstream_start
upstream_fill library/app:1
gateway_start
user_add dev developer-password
import_image >"$place/set-up.log"
check 'it is 2.3 or newer' is_new_enough
check 'push and pull by the client' by_the_client
check 'no right is refused' no_right
check 'a mirror by ns=' mirror_by_namespace
