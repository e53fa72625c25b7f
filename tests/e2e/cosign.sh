#!/usr/bin/env bash
# cosign 3: signatures and attestations, as referrers and in tags as before. Without any service: keys, and no transparency log.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/cosign:$PATH
export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/trusted/ca.crt COSIGN_PASSWORD=words
digest=$(cat "$images/multi.digest")
repository=$secure/team/signed
image=$repository@$digest

cosign() { bounded cosign "$@"; }
crane() { bounded crane "$@"; }
copy() { bounded skopeo copy --quiet --all --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$1"; }
as() { docker_login "$DOCKER_CONFIG" "$@"; }
tags() { crane ls "$1" | sort | paste -sd' '; }

# referrers NAME: how many there are, by curl.
referrers() {
  bounded curl --fail --silent --show-error --cacert "$ca" --user "admin:$password" "https://$secure/v2/$1/referrers/$digest" | jq '.manifests | length'
}

sign() { cosign sign --yes --key "$place/cosign.key" --signing-config "$place/signing.json" "$@"; }
attest() {
  cosign attest --yes --key "$place/cosign.key" --signing-config "$place/signing.json" --predicate "$place/predicate.json" --type custom "$@"
}
verify() { cosign verify --key "$place/cosign.pub" --insecure-ignore-tlog --trusted-root "$place/root.json" "$@"; }

# It asks nobody whether the password is right.
logs_in() {
  cosign login "$secure" --username admin --password "$password"
}

signs_and_verifies() {
  refused 'no signatures|not found|no matching' verify "$image"
  sign "$image"
  verify "$image" | jq -e --arg digest "$digest" '.[0].critical.image["docker-manifest-digest"] == $digest'
  same 1 "$(referrers team/signed)"
  same 1 "$(tags "$repository")"
  refused 'no matching|invalid signature|verif' cosign verify --key "$place/stranger.pub" --insecure-ignore-tlog --trusted-root "$place/root.json" "$image"
}

attests() {
  printf '{"checked": "yes"}' >"$place/predicate.json"
  attest "$image"
  cosign verify-attestation --key "$place/cosign.pub" --insecure-ignore-tlog --trusted-root "$place/root.json" --type custom "$image"
  same 2 "$(referrers team/signed)"
  cosign tree "$image"
}

# As cosign 2 does it: the signature is a tag beside the image.
signs_in_a_tag() {
  copy "$secure/team/before:1"
  local before=$secure/team/before@$digest
  cosign sign --yes --key "$place/cosign.key" --use-signing-config=false --tlog-upload=false --new-bundle-format=false "$before"
  same "1 ${digest/:/-}.sig" "$(tags "$secure/team/before")"
  cosign verify --key "$place/cosign.pub" --insecure-ignore-tlog --new-bundle-format=false "$before"
  cosign clean --force --type signature "$before"
  same 1 "$(tags "$secure/team/before")"
  refused 'no signatures|not found' cosign verify --key "$place/cosign.pub" --insecure-ignore-tlog --new-bundle-format=false "$before"
}

# With a signature in a tag: what is a referrer, cosign 3.1 pushes before its own layer, which no registry has to take.
saves_and_loads() {
  cosign save --dir "$place/saved" "$secure/team/kept@$digest"
  cosign load --dir "$place/saved" "$secure/team/loaded:1"
  same "$digest" "$(crane digest "$secure/team/loaded:1")"
  cosign verify --key "$place/cosign.pub" --insecure-ignore-tlog --new-bundle-format=false "$secure/team/loaded@$digest"
}

wrong_password() {
  as admin wrong
  refused 'unauthorized|401' sign "$image"
  refused 'unauthorized|401' verify "$image"
  as admin "$password"
}

no_right() {
  copy "$secure/public/signed:1"
  as dev developer-password
  refused 'denied|403' sign "$secure/public/signed@$digest"
  # It ends with 0 all the same.
  cosign clean --force --type signature "$secure/team/kept@$digest" 2>&1 | tee -a /dev/stderr | grep -q 'DENIED: you may not delete' ||
    fail 'it does not say that it may not delete'
  as admin "$password"
  same 0 "$(referrers public/signed)"
  cosign verify --key "$place/cosign.pub" --insecure-ignore-tlog --new-bundle-format=false "$secure/team/kept@$digest"
}

set_up() {
  mkdir -p "$place/trusted"
  cp "$ca" "$SSL_CERT_FILE"
  (cd "$place" && cosign generate-key-pair)
  (cd "$place" && cosign generate-key-pair --output-key-prefix stranger)
  cosign signing-config create --out "$place/signing.json"
  cosign trusted-root create --out "$place/root.json"
  copy "$repository:1"
  copy "$secure/team/kept:1"
  as admin "$password"
  cosign sign --yes --key "$place/cosign.key" --use-signing-config=false --tlog-upload=false --new-bundle-format=false "$secure/team/kept@$digest"
  rm -r "$DOCKER_CONFIG"
}

gateway_start
user_add dev developer-password
set_up >"$place/set-up.log" 2>&1 || { cat "$place/set-up.log"; exit 1; }
check 'login' logs_in
check 'sign and verify, by a referrer and no tag' signs_and_verifies
check 'attest and verify that' attests
check 'sign in a tag, verify, and take it away' signs_in_a_tag
check 'save and load' saves_and_loads
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
