#!/usr/bin/env bash
# oci-client, the Rust crate that wasm tools pull and push with.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/oci_client:$PATH
export SSL_CERT_FILE=$place/ca.crt
repository=$secure/team/oci-client

# oci_client COMMAND REFERENCE FILE, as admin or as $as.
as=
oci_client() {
  local login=${as:-admin $password}
  OCI_USER=${login% *} OCI_PASSWORD=${login#* } bounded oci_client "$@"
}

# there_and_back COMMAND TAG
there_and_back() {
  local pushed
  pushed=$(oci_client "$1" "$repository:$2" "$images/payload")
  same "$pushed" "$(oci_client pull "$repository:$2" "$place/pulled")"
  cmp "$images/payload" "$place/pulled"
  rm "$place/pulled"
}

lists() {
  oci_client push "$repository:third" "$place/small"
  same 'pieces third whole' "$(oci_client tags "$repository:pieces")"
  same 'team/oci-client' "$(oci_client repositories "$repository:pieces")"
}

attaches_and_discovers() {
  local attached
  attached=$(oci_client attach "$repository:third" "$place/small")
  same "$attached" "$(oci_client referrers "$repository:third")"
  same 0 "$(oci_client referrers "$repository:pieces" | wc -l)"
}

wrong_password() {
  as='admin wrong' refused 'unauthorized|401|not authorized|authentication' oci_client push "$repository:no" "$place/small"
  as='admin wrong' refused 'unauthorized|401|not authorized|authentication' oci_client pull "$repository:third" "$place/pulled"
  as='admin wrong' refused 'unauthorized|401|not authorized|authentication' oci_client tags "$repository:third"
}

no_right() {
  as='dev developer-password' refused 'denied|403' oci_client push "$secure/elsewhere/app:1" "$place/small"
  as='dev developer-password' oci_client push "$secure/team/of-dev:1" "$place/small"
}

gateway_start
user_add dev developer-password
cp "$ca" "$SSL_CERT_FILE"
printf 'small\n' >"$place/small"
check 'push in pieces, and pull' there_and_back push pieces
check 'push whole, and pull' there_and_back push-whole whole
check 'lists tags, by pages, and repositories' lists
check 'attach and discover' attaches_and_discovers
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
