#!/usr/bin/env bash
# The code of docker 29 (moby's module v2), whose engine keeps images in containerd by itself, with containerd 2.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

by_name=hub.example:5000    # the gateway's name for all of docker.io
inside=$(cat "$images/single.digest")
older_path=$PATH
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

# older COMMAND…: with Debian's engine, which asks its mirror as those up to 28 do.
older() {
  local place=$place/older PATH=$older_path DOCKER_HOST
  DOCKER_HOST=unix://$place/docker.sock
  "$@"
}

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

# ---- a mirror of Docker Hub ------------------------------------------------

# team/app:1, library/app:1 and library/one:1 (no index) are there alone, and library/both:1 is another image there than here.
hub_make() {
  mirror_file hub "${as_hub[@]}" 'hosts = ["hub.example"]' 'docker_mirror = true'
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["docker.io/**", "library/**"]
actions = ["pull"]
'
  upstream_start
  local name
  for name in library/app:1 library/both:1 team/app:1; do upstream_fill "$name"; done
  bounded skopeo copy --quiet --dest-cert-dir "${upstream_ca%/*}" --dest-creds robot:robot-password "oci:$images/oci:single" \
    "docker://$upstream/library/one:1"
}

# both_pull NAME DIGEST
both_pull() {
  same "$2" "$(pull "$1")"
  same "$2" "$(older pull "$1")"
}

# asked_for TARGET: by the one engine or the other.
asked_for() { grep -qE "target=\"?$1\"? status=200 .* user_agent=\"docker/" "$gateway/log" || fail "nobody asked for $1"; }

one_tag_is_one_image() {
  both_pull app:1 "$multi"
  both_pull both:1 "$inside"
  asked_for '/v2/library/both/manifests/1\?ns=docker.io'
  asked_for '/v2/library/both/manifests/1'
}

# This engine asks for blobs before it says who it is: those of the mirror must not be there for it, or it would push none.
what_is_pushed_is_kept_here() {
  local name names=(library/app library/one)
  docker logout "$secure"
  no_images
  for name in "${names[@]}"; do
    pull "${name#*/}:1"
    docker tag "${name#*/}:1" "$secure/$name:1"
  done
  login admin "$password"
  for name in "${names[@]}"; do
    same "$inside" "$(push "$secure/$name:1")"
  done
  no_images
  catalog | tee -a /dev/stderr | jq --exit-status --args '$ARGS.positional - .repositories == []' "${names[@]}" ||
    fail 'the built-in registry has not all that was pushed'
  cold
  upstream_stop
  for name in "${names[@]}"; do
    same "$inside" "$(pull "$secure/$name@$inside")"
    same "$inside" "$(pull "$secure/$name:1")"
    same "$marker" "$(marker_of "$secure/$name:1")"
  done
  upstream_start
}

# Of an image that is unpacked already the layers are not pulled, and then it cannot be pushed.
no_images() { docker image prune --all --force; }
catalog() { curl --fail --silent --show-error --cacert "$ca" --user "admin:$password" "https://$secure/v2/_catalog?n=1000"; }

other_names_need_ns() {
  same "$multi" "$(pull team/app:1)"
  refused registry-1.docker.io older pull team/app:1
}

all_by_a_name_of_its_own() {
  engine_mirror "https://$by_name"
  older engine_mirror "https://$by_name"
  local name
  for name in app:1 both:1 team/app:1; do both_pull "$name" "$multi"; done
}

hub_make
gateway_start
user_add dev developer-password
mkdir -p "$place/trusted" "/etc/docker/certs.d/$secure"
cp "$ca" "$place/trusted/ca.crt"
cp "$ca" "/etc/docker/certs.d/$secure/ca.crt"
mkdir -p "/etc/docker/certs.d/docker.io" "/etc/docker/certs.d/$by_name" "$place/older"
# This engine looks for the CA of its mirror there, and the older one under the mirror's name.
cp "$ca" /etc/docker/certs.d/docker.io/ca.crt
cp "$ca" "/etc/docker/certs.d/$by_name/ca.crt"
bounded skopeo copy --quiet --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:single" "docker://$secure/library/both:1"
# The command line may be as old as Debian's.
export DOCKER_MIN_API_VERSION=1.24
engine_mirror "https://$secure"
engine_start
older engine_mirror "https://$secure"
older engine_start
check 'images are in containerd' is_29
check 'login, and a wrong password' logs_in
check 'push and pull; the digests are equal' pushes_and_pulls
check 'a whole index' pulls_an_index
check 'what is public without a login, and nothing else' public_without_a_login
check 'no right is refused' no_right
check 'a mirror: one tag is one image to this engine and to an older one' one_tag_is_one_image
check 'a mirror: what is pushed below its names is kept here' what_is_pushed_is_kept_here
check 'a mirror: this engine gets all of the Hub, and an older one official images' other_names_need_ns
check 'a mirror by a name of its own: both get all of the Hub' all_by_a_name_of_its_own
