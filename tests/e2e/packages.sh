# shellcheck shell=bash
# An image that says which packages it has, for those that look into images.

: "${place:?source lib.sh first}" "${secure:?}"

# packages_push NAME: as admin, whose login is in $DOCKER_CONFIG.
packages_push() {
  local root=$place/root
  mkdir -p "$root/etc" "$root/lib/apk/db"
  printf 'ID=alpine\nVERSION_ID=3.20.0\nNAME="Alpine Linux"\n' >"$root/etc/os-release"
  printf '3.20.0\n' >"$root/etc/alpine-release"
  printf 'C:Q1qKcZ+j23xssAXmgQhkOO8dHnbWw=\nP:dockgate-thing\nV:1.2.3-r0\nA:x86_64\nS:1\nI:1\nT:a thing\nU:https://example.org\nL:MIT\no:dockgate-thing\nm:A <a@example.org>\n\n' \
    >"$root/lib/apk/db/installed"
  tar --create --file "$place/packages.tar" --directory "$root" .
  bounded crane append --new_layer "$place/packages.tar" --new_tag "$1"
}
