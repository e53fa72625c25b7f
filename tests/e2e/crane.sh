#!/usr/bin/env bash
# crane (go-containerregistry): also what kaniko and ko are made of.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/trusted/ca.crt
private=$secure/team/app
multi=$(cat "$images/multi.digest")

crane() { bounded crane "$@"; }
login() { crane auth login "$secure" --username admin --password-stdin <<<"$password"; }

needs_the_ca() {
  mkdir -p "$place/trusted"
  : >"$SSL_CERT_FILE"
  login
  refused 'x509|certificate' crane catalog "$secure"
  cp "$ca" "$SSL_CERT_FILE"
  crane catalog "$secure"
}

pushes_and_pulls() {
  crane push "$images/single.tar" "$private:1"
  crane validate --remote "$private:1"
  crane pull "$private:1" "$place/pulled.tar"
  same "$(tar -xOf "$images/single.tar" manifest.json | jq -r '.[0].Config' | sed 's/\.json//; s/^sha256://')" \
    "$(tar -xOf "$place/pulled.tar" manifest.json | jq -r '.[0].Config' | sed 's/^sha256://')"
}

whole_index() {
  skopeo copy --quiet --all --dest-cert-dir "$place/trusted" --dest-creds "admin:$password" "oci:$images/oci:multi" "docker://$private:multi"
  same "$multi" "$(crane digest "$private:multi")"
  crane copy "$private:multi" "$secure/team/copy:multi"
  same "$multi" "$(crane digest "$secure/team/copy:multi")"
  crane validate --remote "$secure/team/copy:multi"
}

lists() {
  same '1 multi' "$(crane ls "$private" | sort | paste -sd' ')"
  same 'team/app team/copy' "$(crane catalog "$secure" | sort | paste -sd' ')"
}

deletes() {
  crane delete "$secure/team/copy@$multi"
  refused 'MANIFEST_UNKNOWN|not found|404' crane digest "$secure/team/copy@$multi"
  same "$multi" "$(crane digest "$private:multi")"
}

gateway_start
check 'needs the CA' needs_the_ca
check 'push, validate and pull' pushes_and_pulls
check 'a whole index copied across repositories; the digests are equal' whole_index
check 'lists tags and repositories' lists
check 'delete by digest' deletes
