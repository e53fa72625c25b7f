#!/usr/bin/env bash
# The code of docker 29 (moby's module v2), whose engine keeps images in containerd by itself, with containerd 2.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

clients=${BASH_SOURCE[0]%/*}/../../.test/clients
PATH=$clients/docker29:$clients/containerd2:$PATH
export DOCKER_CONFIG=$place/config
engine_options=(--userland-proxy=false)
private=$secure/team/app:1

docker() { bounded docker "$@"; }
login() { docker login --username "$1" --password-stdin "$secure" <<<"$2"; }
push() { docker push "$1" | tee -a /dev/stderr | sed -n 's/.*digest: \(sha256:[0-9a-f]*\) .*/\1/p'; }
# marker_of NAME: what is in the image, without running it: this engine gives each container a time namespace, which not every kernel has.
marker_of() {
  local container
  container=$(docker create "$1")
  docker cp "$container:/etc/marker" - | tar -xO
  docker rm "$container" >/dev/null
}
pull() { docker pull "$1" | tee -a /dev/stderr | sed -n 's/^Digest: //p'; }

is_29() {
  docker version
  docker info --format '{{.Driver}} {{.DriverStatus}}' | grep -q io.containerd.snapshotter || fail 'images are not in containerd'
}

logs_in() {
  refused 'unauthorized|incorrect username or password' login admin wrong
  login admin "$password"
}

pushes_and_pulls() {
  local pushed
  docker tag dockgate-test:single "$private"
  pushed=$(push "$private")
  docker image rm --force "$private" dockgate-test:single
  same "$pushed" "$(pull "$private")"
  same "$marker" "$(marker_of "$private")"
}

pulls_an_index() {
  bounded skopeo copy --quiet --all --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$secure/team/multi:1"
  same "$(cat "$images/multi.digest")" "$(pull "$secure/team/multi:1")"
  same "$marker" "$(marker_of "$secure/team/multi:1")"
}

public_without_a_login() {
  docker tag "$private" "$secure/public/app:1"
  push "$secure/public/app:1"
  docker logout "$secure"
  docker image rm --force "$secure/public/app:1" "$private"
  pull "$secure/public/app:1"
  refused 'denied|unauthorized|authorization failed|no basic auth' docker pull "$private"
  # A new tag: of what is there already it sends nothing.
  docker tag "$secure/public/app:1" "$secure/public/app:2"
  refused 'denied|unauthorized|authorization failed|no basic auth|authentication required' docker push "$secure/public/app:2"
}

no_right() {
  login dev developer-password
  docker tag "$secure/public/app:1" "$secure/elsewhere/app:1"
  refused 'denied|may not push' docker push "$secure/elsewhere/app:1"
  docker tag "$secure/public/app:1" "$secure/team/of-dev:1"
  push "$secure/team/of-dev:1"
}

gateway_start
user_add dev developer-password
mkdir -p "$place/trusted" "/etc/docker/certs.d/$secure"
cp "$ca" "$place/trusted/ca.crt"
cp "$ca" "/etc/docker/certs.d/$secure/ca.crt"
# The command line may be as old as Debian's.
export DOCKER_MIN_API_VERSION=1.24
engine_start
check 'images are in containerd' is_29
check 'login, and a wrong password' logs_in
check 'push and pull; the digests are equal' pushes_and_pulls
check 'a whole index' pulls_an_index
check 'what is public without a login, and nothing else' public_without_a_login
check 'no right is refused' no_right
