#!/usr/bin/env bash
# notation-go: Notary Project's signatures, found as referrers.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/notation:$PATH
export NOTATION_CONFIG=$place/notation SSL_CERT_FILE=$place/ca.crt DOCKER_CONFIG=$place/config
repository=$secure/team/signed
image=$repository@$(cat "$images/multi.digest")

# notation COMMAND REFERENCE ARGUMENT…, as admin or as $as.
as=
notation() {
  local login=${as:-admin $password}
  NOTATION_USERNAME=${login% *} NOTATION_PASSWORD=${login#* } bounded notation "$@"
}

copy() { bounded skopeo copy --quiet --all --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$1"; }
tags() { bounded crane ls "$1" | sort | paste -sd' '; }

# key NAME: a certificate that may sign code, and nothing else.
key() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1/O=dockgate/C=DE/ST=none" \
    -addext basicConstraints=critical,CA:false -addext keyUsage=critical,digitalSignature -addext extendedKeyUsage=critical,codeSigning \
    -keyout "$place/$1.key" -out "$place/$1.crt"
}

signs_and_verifies() {
  refused 'no signature|not found|signature is not' notation verify "$image"
  notation sign "$image" "$place/trusted.key" "$place/trusted.crt" cose
  notation sign "$image" "$place/trusted.key" "$place/trusted.crt" jws
  same 2 "$(notation list "$image" | grep -c '^sha256:')"
  same "${image#*@}" "$(notation verify "$image")"
  same 1 "$(tags "$repository")"
}

knows_other_signatures() {
  copy "$secure/team/other:1"
  local other=$secure/team/other@${image#*@}
  notation sign "$other" "$place/stranger.key" "$place/stranger.crt" cose
  refused 'not trusted|authenticity|signature' notation verify "$other"
}

deletes() {
  same 2 "$(notation delete "$image" | grep -c '^sha256:')"
  same 0 "$(notation list "$image" | wc -l)"
  refused 'no signature|not found|signature is not' notation verify "$image"
}

wrong_password() {
  as='admin wrong' refused 'unauthorized|401' notation sign "$image" "$place/trusted.key" "$place/trusted.crt" cose
  as='admin wrong' refused 'unauthorized|401' notation verify "$image"
  as='admin wrong' refused 'unauthorized|401' notation list "$image"
}

no_right() {
  copy "$secure/public/signed:1"
  local public=$secure/public/signed@${image#*@}
  as='dev developer-password' refused 'denied|403' notation sign "$public" "$place/trusted.key" "$place/trusted.crt" cose
  same 0 "$(notation list "$public" | wc -l)"
  as='dev developer-password' notation sign "$image" "$place/trusted.key" "$place/trusted.crt" jws
  as='dev developer-password' refused 'denied|403' notation delete "$image"
  same 1 "$(notation list "$image" | wc -l)"
}

gateway_start
user_add dev developer-password
mkdir -p "$place/trusted" "$NOTATION_CONFIG/truststore/x509/ca/e2e"
cp "$ca" "$place/trusted/ca.crt"
cp "$ca" "$SSL_CERT_FILE"
docker_login "$DOCKER_CONFIG" admin "$password"
for one in trusted stranger; do key "$one" 2>/dev/null; done
cp "$place/trusted.crt" "$NOTATION_CONFIG/truststore/x509/ca/e2e/"
copy "$repository:1"
check 'sign, list and verify, by referrers and no tag' signs_and_verifies
check 'a signature of somebody else is none' knows_other_signatures
check 'delete' deletes
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
