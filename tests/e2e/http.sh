#!/usr/bin/env bash
# What curl and openssl see: the doors of the gateway.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

ask() { bounded curl --silent --show-error --cacert "$ca" "$@"; }
status_of() { ask --output /dev/null --write-out '%{http_code}' "$@"; }
challenges_of() { ask --output /dev/null --dump-header - "$@" | tr -d '\r' | grep -i '^www-authenticate:' || true; }
error_code() { ask "$@" | jq -r '.errors[0].code'; }

one_challenge() {
  same 401 "$(status_of "https://$secure/v2/")"
  same 1 "$(challenges_of "https://$secure/v2/" | wc -l)"
  challenges_of "https://$secure/v2/" | grep -q "Bearer realm=\"https://$secure/token\"" || fail "the challenge does not name /token"
  same UNAUTHORIZED "$(error_code "https://$secure/v2/")"
}

credentials() {
  same 200 "$(status_of --user "admin:$password" "https://$secure/v2/")"
  same 401 "$(status_of --user admin:wrong "https://$secure/v2/")"
  same 401 "$(status_of --user nobody:wrong "https://$secure/v2/")"
  local token
  token=$(ask --user "admin:$password" "https://$secure/token?service=$secure&scope=repository:team/app:pull" | jq -r .token)
  same 200 "$(status_of --header "Authorization: Bearer $token" "https://$secure/v2/")"
  same 401 "$(status_of --header 'Authorization: Bearer nonsense' "https://$secure/v2/")"
}

both_protocols_on_one_port() {
  same 401 "$(status_of "https://$local_name/v2/")"
  same 401 "$(status_of "http://$local_name/v2/")"
  same 401 "$(status_of "http://$plain/v2/")"
}

plain_from_elsewhere() {
  local status
  status=$(status_of "http://$secure/v2/")
  [[ $status == 4?? ]] || fail "plain HTTP to an address that is not loopback was answered $status"
  [[ $(ask "http://$secure/v2/" | jq -r '.errors[0].message') == *https* ]] || fail "the error does not say to use https"
}

http_versions() {
  same 2 "$(ask --output /dev/null --write-out '%{http_version}' "https://$secure/v2/")"
  same 1.1 "$(ask --http1.1 --output /dev/null --write-out '%{http_version}' "https://$secure/v2/")"
}

# What docker 1.3 to 1.5 offer (Go 1.3 and 1.4).
old_handshake() {
  bounded openssl s_client -connect "$secure" -CAfile "$ca" -verify_return_error -tls1_2 -curves P-256 \
    -cipher ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256 -brief
}

old_versions_of_tls() {
  refused 'alert|protocol|no protocols|handshake' bounded openssl s_client -connect "$secure" -tls1_1 -cipher DEFAULT@SECLEVEL=0 -brief
}

old_clients_are_sent_to_v1() {
  local agent='docker/1.5.0 go/go1.4.1 git-commit/a8a31ef kernel/3.16.0 os/linux arch/amd64'
  ask --user-agent "$agent" --dump-header "$place/headers" --output /dev/null "https://$secure/v2/"
  grep -q ' 404' "$place/headers" || fail "docker 1.5 was not answered 404: $(head -n1 "$place/headers")"
  ! grep -qi '^docker-distribution-api-version' "$place/headers" || fail "the 404 names the v2 API: docker 1.5 would stay"
  same 401 "$(status_of --user-agent docker/1.6.0 "https://$secure/v2/")"
}

unknown_names() {
  local auth=(--user "admin:$password")
  same 404 "$(status_of "${auth[@]}" "https://$secure/v2/team/none/manifests/1")"
  same 400 "$(status_of "${auth[@]}" "https://$secure/v2/Team/none/manifests/1")"
  same 404 "$(status_of "${auth[@]}" "https://$secure/v2/team/none/blobs/sha256:$(printf '0%.0s' {1..64})")"
}

administration() {
  same 200 "$(status_of "http://$admin/livez")"
  same 200 "$(status_of "http://$admin/readyz")"
  ask "http://$admin/metrics" >"$place/metrics"
  grep -q '^# TYPE ' "$place/metrics" || fail "/metrics is not Prometheus text"
  same 404 "$(status_of --request DELETE "http://$admin/cache?all=1")"
  local path
  for path in livez readyz metrics; do
    [[ $(status_of "https://$secure/$path") == 404 ]] || fail "/$path is on the public port"
  done
}

secrets_are_files() {
  same 600 "$(stat -c %a "$gateway/data/initial-password")"
  ! grep -qF "$password" "$gateway/log" || fail "the initial password is in the log"
  local key keys=0
  while read -r key; do
    same 600 "$(stat -c %a "$key")"
    keys=$((keys + 1))
  done < <(grep -lr 'PRIVATE KEY' "$gateway/certs")
  [[ $keys -gt 0 ]] || fail "no private key in certs/: look where it is now"
}

# A v1 registry that is down: what else there is goes on.
mkdir -p "$gateway/upstreams"
printf 'kind = "legacy"\npeers = ["http://127.0.0.1:5002"]\nclients = "docker < 1.6"\n' >"$gateway/upstreams/legacy-v1.toml"

gateway_start
check 'without credentials there is one challenge, and it names /token' one_challenge
check 'Basic and Bearer are let in, wrong ones are not' credentials
check 'TLS and plain HTTP on one port' both_protocols_on_one_port
check 'plain HTTP from elsewhere is told what to do' plain_from_elsewhere
check 'HTTP/2 and HTTP/1.1' http_versions
check 'docker 1.5 can shake hands' old_handshake
check 'TLS 1.1 is refused' old_versions_of_tls
check 'docker 1.5 is sent to v1' old_clients_are_sent_to_v1
check 'unknown and malformed names' unknown_names
check 'the admin listener answers, and only it' administration
check 'secrets are in 0600 files and not in the log' secrets_are_files
check 'SIGTERM ends it' gateway_stops_cleanly
