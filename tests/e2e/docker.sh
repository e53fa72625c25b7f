#!/usr/bin/env bash
# The docker engine: a dockerd of our own, trusting the gateway's CA through certs.d.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export DOCKER_CONFIG=$place/config
private=$secure/team/app

docker() { bounded docker "$@"; }
login() { docker login --username "$1" --password-stdin "$2" <<<"$3"; }
logged_out() { docker logout "$1"; }

# push NAME: tags the test image so, pushes it, prints its digest.
push() {
  docker tag dockgate-test:single "$1"
  docker push "$1" | tee -a /dev/stderr | sed -n 's/.* digest: \(sha256:[0-9a-f]*\) .*/\1/p'
}

forget() {
  docker image rm "$1"
  docker image rm --force dockgate-test:single
  docker image prune --force --all
}

# pull NAME: prints the digest that was pulled.
pull() { docker pull "$1" | tee -a /dev/stderr | sed -n 's/^Digest: //p'; }

remember() { docker load --quiet --input "$images/single.tar"; }

round_trip() {
  local pushed pulled
  remember
  pushed=$(push "$1")
  forget "$1"
  pulled=$(pull "$1")
  same "$pushed" "$pulled"
  same "${1%:*}@$pushed" "$(docker image inspect --format '{{index .RepoDigests 0}}' "$1")"
  same "$marker" "$(docker run --rm --network none "$1")"
  same "said by the container" "$(docker run --rm --network none "$1" echo said by the container)"
}

needs_the_ca() {
  refused 'x509|certificate' login admin "$secure" "$password"
  mkdir -p "/etc/docker/certs.d/$secure"
  cp "$ca" "/etc/docker/certs.d/$secure/ca.crt"
  login admin "$secure" "$password"
  logged_out "$secure"
}

wrong_password() {
  refused 'unauthorized|401' login admin "$secure" 'not the password'
  refused 'unauthorized|401' login nobody "$secure" 'not the password'
}

login_and_round_trip() {
  login admin "$secure" "$password"
  round_trip "$private:1"
}

pull_by_digest() {
  local digest
  digest=$(pull "$private:1")
  forget "$private:1"
  same "$digest" "$(pull "$private@$digest")"
}

pushed_again_uploads_nothing() {
  remember
  push "$private:2" 2>&1 | tee "$place/again"
  same 2 "$(grep -c 'Layer already exists' "$place/again")"
}

mounts_layers_from_another_repository() {
  remember
  push "$secure/team/mounted:1" 2>&1 | tee "$place/mounted"
  same 2 "$(grep -c 'Mounted from team/app' "$place/mounted")"
  forget "$secure/team/mounted:1"
  pull "$secure/team/mounted:1"
}

logged_out_may_nothing_private() {
  logged_out "$secure"
  remember
  refused 'denied|unauthorized|no basic auth' docker pull "$private:1"
  docker tag dockgate-test:single "$private:3"
  refused 'denied|unauthorized|no basic auth' docker push "$private:3"
}

public_image_without_login() {
  login admin "$secure" "$password"
  local pushed pulled
  remember
  pushed=$(push "$secure/public/app:1")
  forget "$secure/public/app:1"
  logged_out "$secure"
  same "$pushed" "$(pull "$secure/public/app:1")"
  same "$marker" "$(docker run --rm --network none "$secure/public/app:1")"
  refused 'denied|unauthorized|no basic auth' docker push "$secure/public/app:1"
}

developer_stays_in_the_team() {
  login dev "$secure" developer-password
  round_trip "$secure/team/by-dev:1"
  remember
  docker tag dockgate-test:single "$secure/elsewhere/app:1"
  refused 'denied|unauthorized|not found|name unknown' docker push "$secure/elsewhere/app:1"
  refused 'denied|unauthorized|not found|manifest unknown' docker pull "$secure/elsewhere/app:1"
  logged_out "$secure"
}

# podman reads docker's file, where docker keeps a refresh token: it does not log in there, and need not.
podman_with_dockers_login() {
  local name=$secure/team/by-podman:1
  login admin "$secure" "$password"
  mkdir -p "/etc/containers/certs.d/$secure"
  cp "$ca" "/etc/containers/certs.d/$secure/ca.crt"
  podman_settings
  container_storage
  export REGISTRY_AUTH_FILE=$DOCKER_CONFIG/config.json
  refused 'contains an Identity token' bounded podman login --username admin --password-stdin "$secure" <<<"$password"
  bounded podman load --quiet --input "$images/single.tar"
  bounded podman push --digestfile "$place/by-podman" docker.io/library/dockgate-test:single "$name"
  bounded podman rmi --all --force
  bounded podman pull "$name"
  same "$(cat "$place/by-podman")" "$(bounded podman image inspect --format '{{.Digest}}' "$name")"
  logged_out "$secure"
  refused 'denied|unauthorized|authentication required' bounded podman pull "$name"
}

requests() { grep --count ' INFO request ' "$gateway/log"; }

# As many as were answered when tokens were for certain repositories and actions (a96346b): docker asks for all of them at once.
ten_layers_take_few_requests() {
  local number before pushed pulled
  mkdir -p "$place/ten"
  printf 'FROM scratch\n' >"$place/ten/Dockerfile"
  for number in {0..9}; do
    printf '%s\n' "$number" >"$place/ten/$number"
    printf 'COPY %s /%s\n' "$number" "$number" >>"$place/ten/Dockerfile"
  done
  DOCKER_BUILDKIT=0 docker build --quiet --tag "$secure/team/ten:1" "$place/ten"
  login admin "$secure" "$password"
  before=$(requests)
  docker push --quiet "$secure/team/ten:1"
  pushed=$(($(requests) - before))
  docker image rm --force "$secure/team/ten:1"
  docker image prune --force --all
  before=$(requests)
  docker pull --quiet "$secure/team/ten:1"
  pulled=$(($(requests) - before))
  measured "$pushed requests for the push, $pulled for the pull"
  [[ $pushed -le 48 && $pulled -le 15 ]] || fail "$pushed requests for the push, $pulled for the pull"
  logged_out "$secure"
}

by_the_name_localhost() {
  login admin "$local_name" "$password"
  round_trip "$local_name/team/local:1"
  logged_out "$local_name"
}

over_plain_http() {
  refused 'unauthorized|401' login admin "$plain" 'not the password'
  login admin "$plain" "$password"
  round_trip "$plain/team/plain:1"
  logged_out "$plain"
}

public_over_plain_http() { pull "$plain/public/app:1"; }

survives_a_restart() {
  login admin "$secure" "$password"
  local before after
  before=$(pull "$private:1")
  forget "$private:1"
  gateway_stops_cleanly
  gateway_start
  after=$(pull "$private:1")
  same "$before" "$after"
}

gateway_start
user_add dev developer-password
engine_start
check 'login fails without the CA and works with it in certs.d' needs_the_ca
check 'a wrong password and an unknown user are told so' wrong_password
check 'login, push, pull and run over TLS; the digests are equal' login_and_round_trip
check 'pull by digest' pull_by_digest
check 'what is there is not uploaded again' pushed_again_uploads_nothing
check 'layers are mounted from another repository' mounts_layers_from_another_repository
check 'logged out, private images can neither be pulled nor pushed' logged_out_may_nothing_private
check 'a public image is pulled and run without a login' public_image_without_login
check 'a developer pushes to the team and nowhere else' developer_stays_in_the_team
check 'ten layers take few requests' ten_layers_take_few_requests
check "podman pushes and pulls with docker's login" podman_with_dockers_login
check 'push, pull and run by the name localhost' by_the_name_localhost
check 'login, push, pull and run over plain HTTP' over_plain_http
check 'a public image over plain HTTP without a login' public_over_plain_http
check 'the images are there after a restart of the gateway' survives_a_restart
