#!/usr/bin/env bash
# The gateway as the token service of another registry: Debian's docker-registry with auth.token, and the docker engine.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export DOCKER_CONFIG=$place/config
other=192.0.2.10:5010      # docker-registry, over TLS with the gateway's CA
service=registry.example

docker() { bounded docker "$@"; }
login() { docker login --username "$1" --password-stdin "$2" <<<"$3"; }

push() {
  docker tag dockgate-test:single "$1"
  docker push "$1" | tee -a /dev/stderr | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p'
}

forget() {
  docker image rm "$1"
  docker image rm --force dockgate-test:single
  docker image prune --force --all
}

pull() { docker pull "$1" | tee -a /dev/stderr | sed -n 's/^Digest: //p'; }
remember() { docker load --quiet --input "$images/single.tar"; }

ask() { curl --fail-with-body --silent --show-error --cacert "$ca" "$@"; }

# claims TOKEN: what a token says.
claims() { jq -Rr 'split(".")[1] | gsub("-"; "+") | gsub("_"; "/") | @base64d' <<<"$1"; }

# The gateway's configuration is lib.sh's; other services, and keys that end soon, come on top.
services_on_top() {
  cat >>"$gateway/gateway.toml" <<EOF

[identity.token]
services = ["$service"]
refresh_lifetime = "10m"
key_lifetime = "15s"

[[access]]
who = ["network:192.0.2.0/24"]
repositories = ["mirrored/**"]
actions = ["pull"]
EOF
  kill -HUP "$(cat "$gateway/pid")"
  await 10 served_for_the_other
}

served_for_the_other() { ask --output /dev/null "https://$secure/token?service=$service"; }

other_start() {
  ask --output "$place/token-authority.pem" "https://$secure/token/certificates"
  openssl x509 -in "$place/token-authority.pem" -noout -subject -enddate
  mkdir -p "$place/other"
  cat >"$place/other.yml" <<EOF
version: 0.1
log: { level: info }
storage:
  filesystem: { rootdirectory: "$place/other" }
  delete: { enabled: true }
http:
  addr: "$other"
  tls: { certificate: "$gateway/certs/server.crt", key: "$gateway/certs/server.key" }
auth:
  token:
    realm: "https://$secure/token"
    service: "$service"
    issuer: "dockgate"
    rootcertbundle: "$place/token-authority.pem"
EOF
  daemon_start docker-registry 30 other_answers docker-registry serve "$place/other.yml"
}

other_answers() { [[ $(curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$ca" "https://$other/v2/") == 401 ]]; }

engines_trust_the_ca() {
  local registry
  for registry in "$secure" "$other"; do
    mkdir -p "/etc/docker/certs.d/$registry"
    cp "$ca" "/etc/docker/certs.d/$registry/ca.crt"
  done
}

wrong_password_is_refused() {
  refused 'unauthorized|401' login admin "$other" 'not the password'
}

login_keeps_a_refresh_token_and_no_password() {
  login admin "$other" "$password"
  local kept
  kept=$(jq -r --arg registry "$other" '.auths[$registry]' "$DOCKER_CONFIG/config.json")
  same 3 "$(jq -r '.identitytoken | split(".") | length' <<<"$kept")"
  ! jq -r '.auth' <<<"$kept" | base64 -d | grep -qF "$password" || fail "the password is in config.json"
}

push_and_pull_through_the_other() {
  local pushed
  remember
  pushed=$(push "$other/team/app:1")
  forget "$other/team/app:1"
  same "$pushed" "$(pull "$other/team/app:1")"
  same "$marker" "$(docker run --rm --network none "$other/team/app:1")"
  remember
  push "$other/public/app:1"
  push "$other/mirrored/app:1"
}

public_without_a_login() {
  docker logout "$other"
  forget "$other/public/app:1"
  pull "$other/public/app:1"
  refused 'denied|unauthorized' docker pull "$other/team/app:1"
  remember
  docker tag dockgate-test:single "$other/public/app:2"
  refused 'denied|unauthorized' docker push "$other/public/app:2"
}

from_a_network_without_a_login() {
  docker image prune --force --all
  pull "$other/mirrored/app:1"
  refused 'denied|unauthorized' docker push "$other/mirrored/app:1"
}

developer_is_held_to_the_rules() {
  login dev "$other" developer-password
  remember
  push "$other/team/by-dev:1"
  docker tag dockgate-test:single "$other/elsewhere/app:1"
  refused 'denied|unauthorized' docker push "$other/elsewhere/app:1"
}

# A refresh token is what docker holds: it ends with the password, without a word to the other registry.
password_changes_and_the_login_ends() {
  docker pull "$other/team/app:1"
  htpasswd -bB -C 5 "$gateway/htpasswd" dev another-password
  await 10 ask --output /dev/null --user dev:another-password "https://$secure/v2/"
  refused 'denied|unauthorized' docker pull "$other/team/app:1"
  login dev "$other" another-password
  docker pull "$other/team/app:1"
  docker logout "$other"
}

token_of_the_other() {
  ask --user "admin:$password" "https://$secure/token?service=$service&scope=repository:team/app:pull" | jq -r .token
}

not_good_at_the_gateway_itself() {
  local token
  token=$(token_of_the_other)
  same "$service" "$(jq -r .aud <<<"$(claims "$token")")"
  same 401 "$(curl --silent --output /dev/null --write-out '%{http_code}' --cacert "$ca" \
    --header "Authorization: Bearer $token" "https://$secure/v2/")"
  ask --output /dev/null --header "Authorization: Bearer $token" "https://$other/v2/team/app/tags/list"
}

key_of() { jq -Rr 'split(".")[0] | gsub("-"; "+") | gsub("_"; "/") | @base64d | fromjson | .kid' <<<"$1"; }
another_key_signs() { [[ $(key_of "$(token_of_the_other)") != "$1" ]]; }

# The other registry read its certificate once, and hears of no new key.
keys_change_and_the_other_goes_on() {
  local before
  before=$(key_of "$(token_of_the_other)")
  await 60 another_key_signs "$before"
  login admin "$other" "$password"
  docker pull "$other/team/app:1"
  gateway_stops_cleanly
  gateway_start
  services_on_top
  docker pull "$other/team/app:1"
}

gateway_start
user_add dev developer-password
services_on_top
other_start
engines_trust_the_ca
engine_start
check 'a wrong password is refused' wrong_password_is_refused
check 'a login keeps a refresh token and not the password' login_keeps_a_refresh_token_and_no_password
check 'push, pull and run through the other registry' push_and_pull_through_the_other
check 'without a login what is public is pulled, and nothing else' public_without_a_login
check 'a network is served without a login' from_a_network_without_a_login
check 'a developer pushes to the team and nowhere else' developer_is_held_to_the_rules
check 'a login ends when the password changes' password_changes_and_the_login_ends
check 'a token for the other registry is not good at the gateway' not_good_at_the_gateway_itself
check 'keys change, and the gateway restarts, and the other registry goes on' keys_change_and_the_other_goes_on
