#!/usr/bin/env bash
# regsync (regclient): 200 repositories in one run. It asks for each token with the scopes of all repositories that it has come to
# until then, so the last one is for all of them.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

repositories=200
source=$secure/team/source:1
export SSL_CERT_FILE=$place/ca.crt

regsync() { bounded regsync --config "$place/$1.json" once; }
ask() { bounded curl --fail --silent --show-error --cacert "$ca" --user "admin:$password" "$@"; }
# digest_of NAME TAG
digest_of() { ask --head "https://$secure/v2/$1/manifests/$2" | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip'; }

# configuration NAME USER PASSWORD REPOSITORY COUNT: into REPOSITORY/1 and so on.
configuration() {
  # By itself it asks ten times a second.
  jq -n --arg registry "$secure" --arg user "$2" --arg password "$3" --arg source "$source" --arg target "$secure/$4" \
    --argjson count "$5" --rawfile ca "$ca" '{version: 1, creds: [{registry: $registry, user: $user, pass: $password, regcert: $ca, reqPerSec: 1000}],
    defaults: {parallel: 4}, sync: [range(1; $count + 1) | {source: $source, target: "\($target)/\(.):1", type: "image"}]}' >"$place/$1.json"
}

makes_the_source() {
  printf 'a layer\n' >"$place/layer.txt"
  (cd "$place" && bounded oras push "$source" layer.txt:text/plain --username admin --password "$password")
}

syncs() {
  configuration all admin "$password" team/sync "$repositories"
  regsync all
  same "$repositories" "$(ask --head "https://$secure/v2/team/sync/[1-$repositories]/manifests/1" | grep -ic "^docker-content-digest: $(digest_of team/source 1)")"
}

# The longest request for a token, whose form the log counts: so many scopes of some 35 bytes.
asks_for_all_at_once() {
  local longest
  longest=$(sed -n 's/.* user=admin method=POST target=\/token status=200 .* received=\([0-9]*\) .*/\1/p' "$gateway/log" | sort -n | tail -n 1)
  [[ $longest -gt $((repositories * 35)) ]] || fail "the longest request for a token had $longest bytes, which is not $repositories scopes"
}

wrong_password() {
  configuration wrong admin wrong team/wrong 1
  refused 'unauthorized|401' regsync wrong
}

no_right() {
  user_add dev developer-password
  configuration denied dev developer-password elsewhere 1
  refused 'denied|unauthorized|401|403' regsync denied
  same 0 "$(ask "https://$secure/v2/_catalog?n=1000" | jq '[.repositories[] | select(startswith("elsewhere/") or startswith("team/wrong/"))] | length')"
}

gateway_start
cp "$ca" "$SSL_CERT_FILE"
check 'the source' makes_the_source
check "$repositories repositories in one run" syncs
check 'one request for a token has the scopes of all' asks_for_all_at_once
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
