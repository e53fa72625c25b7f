#!/usr/bin/env bash
# Jib, which Maven and Gradle build images with: where it is asked for Bearer and where for Basic, and with a base from a mirror.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

built=${BASH_SOURCE[0]%/*}/../../.test/clients/jib
by_name=hub.example:5000
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt

# jib CACHE BASE TARGET [REGISTRY MIRROR], as admin or as $as; with an empty cache everything is asked for.
as=
jib() {
  local login=${as:-admin $password}
  # shellcheck disable=SC2086  # a user and a password
  bounded java -cp "$built/classes:$built/lib/*" -Djavax.net.ssl.trustStore="$place/trust.p12" -Djavax.net.ssl.trustStorePassword=changeit \
    Containerize "$2" "$3" "$place/thing.txt" "$place/cache/$1" $login "${@:4}"
}

crane() { bounded crane "$@"; }
# file NAME PATH: what is in the image there.
file() { crane export "$1" - | tar -xO "$2"; }

hub_make() {
  mirror_file hub "${as_hub[@]}" 'hosts = ["hub.example"]'
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["docker.io/**"]
actions = ["pull"]
'
}

asked_for() {
  bounded curl --silent --cacert "$ca" --output /dev/null --dump-header - "https://$secure/v2/" | grep -i '^www-authenticate:' | grep -qi "$1" ||
    fail "callers are not asked for $1"
}

# there_and_back SCHEME: pushes from scratch, and builds on that.
there_and_back() {
  asked_for "$1"
  local pushed
  pushed=$(jib "$1-first" scratch "$secure/team/jib-$1:base")
  same "$pushed" "$(crane digest "$secure/team/jib-$1:base")"
  same thing "$(file "$secure/team/jib-$1:base" jib/thing.txt)"
  bounded skopeo copy --quiet --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$secure/team/base-$1:1"
  pushed=$(jib "$1-second" "$secure/team/base-$1:1" "$secure/team/jib-$1:1")
  same "$pushed" "$(crane digest "$secure/team/jib-$1:1")"
  crane validate --remote "$secure/team/jib-$1:1"
  same "$marker" "$(file "$secure/team/jib-$1:1" etc/marker)"
}

# refusals SCHEME
refusals() {
  asked_for "$1"
  as='admin wrong' refused 'unauthorized|401' jib "$1-third" scratch "$secure/team/no:1"
  as='admin wrong' refused 'unauthorized|401' jib "$1-fourth" "$secure/team/base-$1:1" "$secure/team/no:1"
  as='dev developer-password' refused 'denied|403|unauthorized' jib "$1-fifth" scratch "$secure/elsewhere/app:1"
  grep -q 'user=dev method=[A-Z]* target=[^ ]*/v2/elsewhere/app/[^ ]* status=403' "$gateway/log" || fail 'dev was not answered 403'
  as='dev developer-password' jib "$1-sixth" scratch "$secure/team/of-dev-$1:1"
  refused 'NAME_UNKNOWN|MANIFEST_UNKNOWN|404' crane digest "$secure/team/no:1"
}

base_from_a_mirror() {
  cold
  local pushed
  pushed=$(jib mirrored app:1 "$secure/team/mirrored:1" registry-1.docker.io "$by_name")
  same "$pushed" "$(crane digest "$secure/team/mirrored:1")"
  same "$marker" "$(file "$secure/team/mirrored:1" etc/marker)"
  each_blob_once
}

base_by_prefix() {
  cold
  jib prefixed "$secure/docker.io/library/app:1" "$secure/team/prefixed:1"
  same "$marker" "$(file "$secure/team/prefixed:1" etc/marker)"
  each_blob_once
}

with_basic() {
  gateway_stops_cleanly
  export DOCKGATE__IDENTITY__CHALLENGE=basic
  gateway_start
}

hub_make
upstream_start
upstream_fill library/app:1
gateway_start
user_add dev developer-password
mkdir -p "$place/trusted"
cp "$ca" "$place/trusted/ca.crt"
cp "$ca" "$SSL_CERT_FILE"
keytool -importcert -noprompt -alias gateway -file "$ca" -keystore "$place/trust.p12" -storepass changeit 2>/dev/null
docker_login "$DOCKER_CONFIG" admin "$password"
printf 'thing\n' >"$place/thing.txt"
check 'Bearer: push, and build on it' there_and_back bearer
check 'Bearer: a wrong password and no right are refused' refusals bearer
check 'a base from a mirror' base_from_a_mirror
check 'a base from a mirror by its prefix' base_by_prefix
with_basic
check 'Basic: push, and build on it' there_and_back basic
check 'Basic: a wrong password and no right are refused' refusals basic
