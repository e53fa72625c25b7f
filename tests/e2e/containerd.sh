#!/usr/bin/env bash
# containerd by ctr, with a hosts directory as kubelet and nerdctl use it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

private=$secure/team/app:1
multi=$(cat "$images/multi.digest")

set_up() {
  containerd_start
  mkdir -p "$place/hosts/$secure" "$place/hosts-without-ca/$secure"
  printf 'server = "https://%s"\n[host."https://%s"]\n  ca = "%s"\n' "$secure" "$secure" "$ca" >"$place/hosts/$secure/hosts.toml"
  printf 'server = "https://%s"\n' "$secure" >"$place/hosts-without-ca/$secure/hosts.toml"
  tar --create --file "$place/multi.tar" --directory "$images/oci" .
  ctr images import --all-platforms --base-name "$secure/team/app" "$place/multi.tar"
  ctr images tag "$secure/team/app:multi" "$private"
}

pushes_and_pulls() {
  ctr images push --hosts-dir "$place/hosts" --user "admin:$password" "$private"
  ctr images remove --sync "$private" "$secure/team/app:multi" "$secure/team/app:single"
  ctr images pull --hosts-dir "$place/hosts" --user "admin:$password" --all-platforms "$private"
  same "$multi" "$(image_digest "$private")"
}

runs() { same "$marker" "$(ctr run --rm "$private" e2e-run)"; }

needs_the_ca_and_the_password() {
  refused 'x509|certificate' ctr images pull --hosts-dir "$place/hosts-without-ca" --user "admin:$password" "$private"
  refused 'unauthorized|401|authorization failed' ctr images pull --hosts-dir "$place/hosts" --user admin:wrong "$private"
  refused 'unauthorized|401|authorization failed|denied' ctr images pull --hosts-dir "$place/hosts" "$private"
}

public_without_login() {
  ctr images tag "$private" "$secure/public/app:1"
  ctr images push --hosts-dir "$place/hosts" --user "admin:$password" "$secure/public/app:1"
  ctr images remove --sync "$secure/public/app:1"
  ctr images pull --hosts-dir "$place/hosts" "$secure/public/app:1"
  same "$multi" "$(image_digest "$secure/public/app:1")"
}

over_plain_http() {
  ctr images tag "$private" "$plain/team/plain:1"
  ctr images push --plain-http --user "admin:$password" "$plain/team/plain:1"
  ctr images remove --sync "$plain/team/plain:1"
  ctr images pull --plain-http --user "admin:$password" "$plain/team/plain:1"
  same "$multi" "$(image_digest "$plain/team/plain:1")"
}

gateway_start
set_up >"$place/set-up.log" 2>&1 || { cat "$place/set-up.log"; exit 1; }
check 'push and pull with a hosts directory; the digests are equal' pushes_and_pulls
check 'a container runs from the pulled image' runs
check 'pull needs the CA and the right password' needs_the_ca_and_the_password
check 'a public image is pulled without a login' public_without_login
check 'push and pull over plain HTTP' over_plain_http
