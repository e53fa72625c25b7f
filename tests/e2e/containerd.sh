#!/usr/bin/env bash
# containerd by ctr, with a hosts directory as kubelet and nerdctl use it.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"
# shellcheck source=upstream.sh
source "${BASH_SOURCE[0]%/*}/upstream.sh"

private=$secure/team/app:1
refusing=127.0.0.1:5091    # a registry that wants to be left alone for ten minutes

refusing_make() {
  printf 'kind = "mirror"\nurl = "http://%s"\nnamespaces = ["refusing.example"]\n' "$refusing" | upstream_file refusing
  more_configuration='
[[access]]
who = ["anyone"]
repositories = ["refusing/**"]
actions = ["pull"]
'
}

refusing_answers() { curl --fail --silent --output /dev/null "http://$refusing/v2/"; }

set_up() {
  daemon_start refusing 30 refusing_answers python3 "${BASH_SOURCE[0]%/*}/refusing.py" "${refusing#*:}" 600
  open_start
  containerd_start
  mkdir -p "$place/hosts/$secure" "$place/hosts-without-ca/$secure"
  printf 'server = "https://%s"\n[host."https://%s"]\n  ca = "%s"\n' "$secure" "$secure" "$ca" >"$place/hosts/$secure/hosts.toml"
  printf 'server = "https://%s"\n' "$secure" >"$place/hosts-without-ca/$secure/hosts.toml"
  tar --create --file "$place/multi.tar" --directory "$images/oci" .
  import_image
}

import_image() {
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

forget_images() {
  local names
  mapfile -t names < <(ctr images list --quiet)
  ctr images remove --sync "${names[@]}"
}

# The gateway knows already that each kind of request is refused, and asks no more. Both hosts are there for all that containerd wants,
# so what the pull takes is what the gateway keeps it waiting.
goes_on_from_a_refusal() {
  local name=refusing.example/library/app:1 path asked answered began took
  hosts_file refusing.example "http://$open" "https://$secure"
  forget_images
  for path in "manifests/1" "manifests/$multi" "blobs/$multi"; do
    refused 503 bounded curl --fail --silent --show-error --cacert "$ca" "https://$secure/v2/library/app/$path?ns=refusing.example"
  done
  asked=$(wc -l <"$place/refusing.log")
  answered=$(wc -l <"$gateway/log")
  began=${EPOCHREALTIME/./}
  ctr images pull --hosts-dir "$place/hosts" "$name"
  took=$(((${EPOCHREALTIME/./} - began) / 1000))
  same "$multi" "$(image_digest "$name")"
  tail -n "+$((answered + 1))" "$gateway/log" | sed -n 's/.*?ns=refusing.example" status=503 .* milliseconds=\([0-9]*\) .*/\1/p' | sort -n >"$place/held"
  [[ -s $place/held ]] || fail 'the gateway was not asked'
  measured "$took ms, with $(wc -l <"$place/held") requests to the gateway, of which it held none longer than $(tail -n 1 "$place/held") ms"
  [[ $took -lt 10000 ]] || fail "it took $took ms"
  same "$asked" "$(wc -l <"$place/refusing.log")"
}

refusing_make
gateway_start
set_up >"$place/set-up.log" 2>&1 || { cat "$place/set-up.log"; exit 1; }
check 'push and pull with a hosts directory; the digests are equal' pushes_and_pulls
check 'a container runs from the pulled image' runs
check 'pull needs the CA and the right password' needs_the_ca_and_the_password
check 'a public image is pulled without a login' public_without_login
check 'push and pull over plain HTTP' over_plain_http
check 'where the upstream is known to refuse, the next host is asked soon' goes_on_from_a_refusal
