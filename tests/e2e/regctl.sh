#!/usr/bin/env bash
# regctl (regclient): artifacts that refer to an image, and their discovery.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

export REGCTL_CONFIG=$place/regctl.json
subject=$secure/team/app:1
multi=$(cat "$images/multi.digest")

regctl() { bounded regctl "$@"; }
referrers() { regctl artifact list "$@" --format '{{range .Descriptors}}{{println .Digest}}{{end}}' | grep -c sha256: || true; }

logs_in() {
  regctl registry set "$secure" --cacert "$(cat "$ca")"
  regctl registry login "$secure" --user admin --pass-stdin <<<"$password"
}

copies_an_index() {
  regctl image copy "ocidir://$images/oci:multi" "$subject"
  same "$multi" "$(regctl image digest "$subject")"
  regctl image copy "$subject" "ocidir://$place/back:1"
  same "$multi" "$(regctl image digest "ocidir://$place/back:1")"
}

attaches_and_discovers() {
  printf 'checked\n' >"$place/report.txt"
  printf 'signed\n' >"$place/signature.txt"
  regctl artifact put --subject "$subject" --artifact-type application/vnd.example.report --file "$place/report.txt"
  regctl artifact put --subject "$subject" --artifact-type application/vnd.example.signature --file "$place/signature.txt"
  same 2 "$(referrers "$subject")"
  same 1 "$(referrers "$subject" --filter-artifact-type application/vnd.example.report)"
  same checked "$(regctl artifact get --subject "$subject" --filter-artifact-type application/vnd.example.report)"
}

# Where a registry has no referrers API, clients keep the list under this tag instead.
needs_no_fallback_tag() {
  same 1 "$(regctl tag ls "$secure/team/app" | paste -sd' ')"
}

deletes_a_tag() {
  regctl image copy "$subject" "$secure/team/app:doomed"
  regctl tag delete "$secure/team/app:doomed"
  same 1 "$(regctl tag ls "$secure/team/app" | paste -sd' ')"
  same "$multi" "$(regctl image digest "$subject")"
}

gateway_start
check 'login' logs_in
check 'a whole index there and back; the digests are equal' copies_an_index
check 'artifacts attached to an image are discovered and read' attaches_and_discovers
check 'the referrers API is used, not a tag' needs_no_fallback_tag
check 'a tag is deleted and its image stays' deletes_a_tag
