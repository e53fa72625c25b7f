#!/usr/bin/env bash
# oras: artifacts, what is attached to them, and its discovery.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export DOCKER_CONFIG=$place/config SSL_CERT_FILE=$place/ca.crt
subject=$secure/team/artifact:1
report=application/vnd.example.report
signature=application/vnd.example.signature

oras() { bounded oras "$@"; }
as_dev() { oras "$1" "${@:2}" --username dev --password developer-password; }
# referrers TYPE…: the digests of what is attached, with the types.
referrers() { oras discover --output json "$subject" "$@" | jq -r '.manifests[]? | .digest + " " + .artifactType' | sort; }

logs_in() {
  refused 'unauthorized|401|credential' oras login "$secure" --username admin --password-stdin <<<wrong
  oras login "$secure" --username admin --password-stdin <<<"$password"
}

pushes_and_pulls() {
  printf 'something\n' >artifact.txt
  oras push "$subject" --artifact-type application/vnd.example.thing artifact.txt:text/plain
  oras pull "$subject" --output "$place/pulled"
  cmp artifact.txt "$place/pulled/artifact.txt"
  oras tag "$subject" 2
  same '1 2' "$(oras repo tags "$secure/team/artifact" | sort | paste -sd' ')"
  same 'team/artifact' "$(oras repo ls "$secure" | paste -sd' ')"
}

# attach TYPE FILE: prints the digest.
attach() { oras attach --artifact-type "$1" "$subject" "$2:text/plain" | tee -a /dev/stderr | sed -n 's/^Digest: //p'; }

attaches_and_discovers() {
  printf 'checked\n' >report.txt
  printf 'signed\n' >signature.txt
  local first second
  first=$(attach "$report" report.txt)
  second=$(attach "$signature" signature.txt)
  same "$(printf '%s\n' "$first $report" "$second $signature" | sort)" "$(referrers)"
  same "$first $report" "$(referrers --artifact-type "$report")"
  oras pull "$secure/team/artifact@$first" --output "$place/attached"
  same checked "$(cat "$place/attached/report.txt")"
}

# Where a registry has no referrers API, clients keep the list under a tag instead, and `discover` would find nothing here.
needs_no_fallback_tag() {
  same '1 2' "$(oras repo tags "$secure/team/artifact" | sort | paste -sd' ')"
  same "$(referrers)" "$(referrers --distribution-spec v1.1-referrers-api)"
}

tree_with_what_is_attached_to_attached() {
  local first
  first=$(referrers --artifact-type "$report" | cut -d' ' -f1)
  oras attach --artifact-type "$signature" "$secure/team/artifact@$first" signature.txt:text/plain
  same 2 "$(oras discover --output tree "$subject" | grep -c "$signature")"
}

copies_with_what_is_attached() {
  oras cp --recursive "$subject" "$secure/team/copied:1"
  same "$(referrers)" "$(subject=$secure/team/copied:1 referrers)"
}

no_right() {
  refused 'denied|403' as_dev push "$secure/elsewhere/app:1" artifact.txt:text/plain
  refused 'denied|403' as_dev manifest delete "$subject" --force
  # What is hidden from dev is not there.
  refused 'denied|403|not found' as_dev attach --artifact-type "$report" "$secure/elsewhere/app@$(oras manifest fetch --descriptor "$subject" | jq -r .digest)" report.txt:text/plain
  as_dev attach --artifact-type application/vnd.example.of-dev "$subject" report.txt:text/plain
  same 3 "$(referrers | wc -l)"
}

wrong_password() {
  refused 'unauthorized|401|credential' oras pull "$subject" --output "$place/none" --username admin --password wrong
  refused 'unauthorized|401|credential' oras attach --artifact-type "$report" "$subject" report.txt:text/plain --username admin --password wrong
}

deletes() {
  oras manifest delete --force "$secure/team/artifact@$(referrers --artifact-type "$report" | cut -d' ' -f1)"
  same 0 "$(referrers --artifact-type "$report" | wc -l)"
  same 2 "$(referrers | wc -l)"
}

gateway_start
user_add dev developer-password
cp "$ca" "$SSL_CERT_FILE"
cd "$place"
check 'login, and a wrong password' logs_in
check 'push, pull, tag and list' pushes_and_pulls
check 'attach and discover, by type too' attaches_and_discovers
check 'the referrers API is used, not a tag' needs_no_fallback_tag
check 'a tree: what is attached to what is attached' tree_with_what_is_attached_to_attached
check 'copied with what is attached' copies_with_what_is_attached
check 'no right is refused' no_right
check 'a wrong password is refused' wrong_password
check 'what is deleted is discovered no more' deletes
