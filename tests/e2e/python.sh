#!/usr/bin/env bash
# Python: oras-py, python-dxf, docker-registry-client-async, and `requests` with connections that are kept.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

tests=${BASH_SOURCE[0]%/*}
python=$tests/../../.test/python-clients/bin
scripts=$tests/clients/python
export SSL_CERT_FILE=$place/ca.crt REQUESTS_CA_BUNDLE=$place/ca.crt
export DXF_HOST=$secure DXF_TLSVERIFY=$place/ca.crt DXF_PROGRESS=0
# oras-py shows a wrong password twelve times.
export DOCKGATE__LIMITS__LOGIN_FAILURES=1000
denied='denied|403|forbidden'
unauthorized='unauthorized|401'

# ---- oras-py ---------------------------------------------------------------

# oras_py COMMAND REFERENCE ARGUMENT…, as admin or as $as.
as=
oras_py() {
  local login=${as:-admin $password}
  # shellcheck disable=SC2086  # a user and a password
  bounded "$python/python" "$scripts/oras_py.py" "$1" "$2" $login "${@:3}"
}

oras_py_round_trip() {
  local how
  for how in push push-chunked; do
    oras_py "$how" "$secure/team/oras-py:$how" "$images/payload" "$place/small"
    rm -rf "$place/oras-py"
    oras_py pull "$secure/team/oras-py:$how" "$place/oras-py"
    cmp "$images/payload" "$place/oras-py/payload"
    cmp "$place/small" "$place/oras-py/small"
  done
  same 'push push-chunked' "$(oras_py tags "$secure/team/oras-py" | paste -sd' ')"
}

# By digest, so what else has that digest is gone too.
oras_py_deletes() {
  oras_py push "$secure/team/oras-py:doomed" "$place/small"
  same doomed "$(oras_py delete "$secure/team/oras-py" doomed)"
  refused 'not found|Issue with' oras_py pull "$secure/team/oras-py:doomed" "$place/oras-py"
}

oras_py_refused() {
  as='admin wrong' refused 'Cannot respond to request for authentication' oras_py push "$secure/team/oras-py:no" "$place/small"
  as='admin wrong' refused 'Cannot respond to request for authentication' oras_py pull "$secure/team/oras-py:push-chunked" "$place/oras-py"
  # It says the same of a 403.
  as='dev developer-password' refused 'Cannot respond to request for authentication' oras_py push "$secure/elsewhere/oras-py:1" "$place/small"
  grep -q 'user=dev method=POST target=/v2/elsewhere/oras-py/blobs/uploads/ status=403' "$gateway/log" || fail 'the push was not answered 403'
  as='dev developer-password' refused "$denied" oras_py delete "$secure/team/oras-py" push-chunked
  same 'push push-chunked' "$(oras_py tags "$secure/team/oras-py" | paste -sd' ')"
}

# ---- python-dxf ------------------------------------------------------------

# dxf ARGUMENT…, as admin or as $as.
dxf() {
  local login=${as:-admin $password}
  DXF_USERNAME=${login% *} DXF_PASSWORD=${login#* } bounded "$python/dxf" "$@"
}

dxf_round_trip() {
  local pushed
  pushed=$(dxf push-blob team/dxf "$images/payload" @first)
  same "sha256:$(sha256sum <"$images/payload" | cut -d' ' -f1)" "$pushed"
  dxf push-blob team/dxf "$place/small" @second
  dxf pull-blob team/dxf @first >"$place/pulled"
  cmp "$images/payload" "$place/pulled"
  same 8388608 "$(dxf blob-size team/dxf @first)"
  same 'first second' "$(dxf list-aliases team/dxf | sort | paste -sd' ')"
  dxf list-repos | grep -qx team/dxf || fail 'team/dxf is not listed'
  same "$pushed" "$(dxf mount-blob team/dxf-mounted team/dxf "$pushed" @mounted)"
  dxf pull-blob team/dxf-mounted @mounted | cmp "$images/payload"
}

dxf_deletes() {
  dxf del-alias team/dxf second
  same first "$(dxf list-aliases team/dxf)"
  refused '404|not found' dxf get-alias team/dxf second
}

dxf_refused() {
  as='admin wrong' refused "$unauthorized" dxf push-blob team/dxf "$place/small"
  as='admin wrong' refused "$unauthorized" dxf pull-blob team/dxf @first
  as='dev developer-password' refused "$denied" dxf push-blob elsewhere/app "$place/small"
  as='dev developer-password' refused "$denied" dxf del-alias team/dxf first
  same first "$(dxf list-aliases team/dxf)"
}

# ---- docker-registry-client-async --------------------------------------------

# drca COMMAND REPOSITORY ARGUMENT…, as admin or as $as.
drca() {
  local login=${as:-admin $password}
  # shellcheck disable=SC2086  # a user and a password
  bounded "$python/python" "$scripts/drca.py" "$1" "$secure" "$2" $login "${@:3}"
}

drca_round_trip() {
  local pushed
  pushed=$(drca push team/drca 1 "$images/payload")
  same "$pushed" "$(drca pull team/drca 1 "$place/pulled")"
  cmp "$images/payload" "$place/pulled"
  drca push team/drca 2 "$place/small"
  same '1 2' "$(drca tags team/drca | paste -sd' ')"
  drca repositories team/drca | grep -qx team/drca || fail 'team/drca is not listed'
}

drca_deletes() {
  same 202 "$(drca delete team/drca "$(drca pull team/drca 2 "$place/pulled")")"
  same 1 "$(drca tags team/drca)"
}

drca_refused() {
  local there
  there=$(drca pull team/drca 1 "$place/pulled")
  as='admin wrong' refused "$unauthorized" drca push team/drca 3 "$place/small"
  as='admin wrong' refused "$unauthorized" drca pull team/drca 1 "$place/pulled"
  as='dev developer-password' refused "$denied" drca push elsewhere/app 1 "$place/small"
  as='dev developer-password' refused "$denied" drca delete team/drca "$there"
  same 1 "$(drca tags team/drca)"
}

# ---- requests ----------------------------------------------------------------

kept_connections() {
  local said
  said=$(bounded "$python/python" "$scripts/kept.py" 1200 dev developer-password elsewhere/app "https://$secure" "http://$plain")
  same '600 accepted, 600 refused, 0 lost, 0 wrong, 0 not as they should be' "$said"
}

gateway_start
user_add dev developer-password
cp "$ca" "$SSL_CERT_FILE"
printf 'small\n' >"$place/small"
check 'oras-py: push whole and in chunks, pull, list' oras_py_round_trip
check 'oras-py: delete' oras_py_deletes
check 'oras-py: a wrong password and no right are refused' oras_py_refused
check 'python-dxf: push, mount, pull, list' dxf_round_trip
check 'python-dxf: delete' dxf_deletes
check 'python-dxf: a wrong password and no right are refused' dxf_refused
check 'docker-registry-client-async: push in pieces, pull, list' drca_round_trip
check 'docker-registry-client-async: delete' drca_deletes
check 'docker-registry-client-async: a wrong password and no right are refused' drca_refused
check 'requests: 1,200 pushes over kept connections, refused and accepted mixed, and none is lost' kept_connections
