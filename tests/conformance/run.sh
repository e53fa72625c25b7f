#!/usr/bin/env bash
# Runs the OCI distribution conformance suite against the real binary:
# tests/conformance/run.sh [BINARY]
#
# Three times: against the built-in registry, against a mirror and against a fronted registry. The registry behind the
# latter two is a second gateway. The version is the coming one of the specification (`dev`), and everything is on but what
# `switched_off` lists. A skipped test fails the run unless it is in `may_be_skipped` with the reason why this program need
# not pass it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=github.com/opencontainers/distribution-spec/conformance
# tests/install.sh puts a Go there if the machine's is too old for the suite.
[[ ! -x $here/../../.test/go/bin/go ]] || PATH=$(realpath "$here/../../.test/go/bin"):$PATH
servers=()

# may_be_skipped TARGET: one test per line, as the suite names it.
may_be_skipped() {
  case $1 in
    hosted | fronted)
      cat <<'EOF'
sha256 blobs/mount anonymous/blob-mount-anonymous
sha512 blobs/mount anonymous/blob-mount-anonymous
EOF
      # A mount without `from` is not guessed (what would it take the permission from?). The suite goes on with an upload then,
      # which it checks.
      cat <<'EOF'
sha256 blobs/range requests/range 500-0
sha512 blobs/range requests/range 500-0
EOF
      # A range that ends before it begins is none: a server may ignore the header, or refuse it (RFC 9110, section 14.2). It is
      # ignored here, so that the client gets what it can use.
      ;;
    mirror)
      cat <<'EOF'
read-only/push/manifest-by-digest
read-only/push/manifest-by-tag
invalid-digest-format/manifest-put
EOF
      # A mirror is not pushed to.
      cat <<'EOF'
read-only/delete/manifest-delete
read-only/delete/blob-delete
invalid-digest-format/delete/manifest-delete
invalid-digest-format/delete/blob-delete
EOF
      # Nor is anything deleted there: the suite asked, and was told so by 405.
      ;;
  esac
}

# switched_off TARGET: everything else has to be on, as the suite's own report says.
switched_off() {
  # Manifests whose parts are missing: a registry may refuse them, and this one does.
  printf 'data.sparse\n'
  [[ $1 != mirror ]] || printf 'apis.push\napis.manifests.digestHeader\n'
  # It has to be off where the suite only reads. And of a manifest that it did not push itself the suite asks for the header
  # Docker-Content-Digest without having looked for it; `look_for_digests` does.
}

# at_least TARGET: how many tests, APIs and kinds of data have to have passed, so that a run that tested nothing is seen.
at_least() {
  case $1 in
    hosted | fronted) printf '750 27 23\n' ;;
    mirror) printf '300 9 2\n' ;;
  esac
}

main() {
  local binary=${1:-$here/../../target/release/dockgate}
  [[ -x $binary ]] || refuse "no program at $binary: build it first with 'cargo build --release --locked'"
  binary=$(realpath "$binary")
  local program
  for program in go curl jq python3; do
    command -v "$program" >/dev/null || refuse "$program is not installed; run tests/install.sh"
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/dockgate-conformance.XXXXXX")
  trap clean_up EXIT
  build_suite
  server_start "$binary" elsewhere
  upstream_file mirror
  upstream_file fronted
  server_start "$binary" gateway

  run_suite hosted gateway conformance
  run_suite fronted gateway fronted/conformance
  fill_elsewhere
  # In groups, without that of pushed blobs: where it is to skip that, it breaks off with no report. Nor does it report where
  # it was told of data and does not read them, so only one group is.
  run_suite mirror gateway mirror/kept ping empty read-only missing-manifest invalid-digest-format
  look_for_digests
  local target problems=0
  for target in hosted fronted mirror; do
    judge "$target" || problems=1
  done
  # What it was asked stands above already.
  [[ $problems -eq 0 ]] || { grep -E ' (WARN|ERROR) ' "$work/gateway/log" || true; } | tail -n 40 | sed 's/^/  gateway: /'
  counts "$work"/{hosted,fronted,mirror}/cases.json
  return "$problems"
}

refuse() {
  printf 'tests/conformance: %s\n' "$*" >&2
  exit 1
}

# The version and the checksums are those of go.mod and go.sum; nothing else is looked up.
build_suite() {
  (cd "$here" && GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN=local CGO_ENABLED=0 go build -o "$work/suite" "$suite") ||
    refuse "the suite does not build: see above"
}

# ---- the servers -----------------------------------------------------------

# server_start BINARY NAME: its files are in $work/NAME.
server_start() {
  local place=$work/$2 line
  mkdir -p "$place"
  cat >"$place/gateway.toml" <<EOF
[listen.main]
address = "127.0.0.1:0"

[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]

[[access]]
who = ["user:admin"]
repositories = ["**"]
actions = ["*"]

[admin]
address = "127.0.0.1:0"
EOF
  "$1" serve --config "$place/gateway.toml" </dev/null >"$place/log" 2>&1 &
  servers+=("$!")
  local deadline=$((SECONDS + 60))
  until line=$(grep -m 1 ' is ready: ' "$place/log"); do
    if [[ $SECONDS -ge $deadline ]] || ! kill -0 "${servers[-1]}" 2>/dev/null; then
      cat "$place/log" >&2
      refuse "$2 did not become ready; its log is above"
    fi
    sleep 0.1
  done
  sed -n 's/.* main=127\.0\.0\.1:\([0-9]*\).*/localhost:\1/p' <<<"$line" >"$place/name"
  ask "$2" /v2/ --output /dev/null
}

# ask SERVER PATH OPTION…: curl, as its administrator.
ask() {
  local place=$work/$1
  curl --silent --show-error --fail --cacert "$place/certs/ca.crt" --user "admin:$(password "$1")" \
    "https://$(cat "$place/name")$2" "${@:3}"
}

password() { tr -d '\n' <"$work/$1/data/initial-password"; }

# upstream_file KIND: the gateway has the other server as its KIND, below that name.
upstream_file() {
  mkdir -p "$work/gateway/upstreams"
  cat >"$work/gateway/upstreams/$1.toml" <<EOF
kind = "$1"
url = "https://$(cat "$work/elsewhere/name")"
ca = "$work/elsewhere/certs/ca.crt"
username = "admin"
password_file = "$work/elsewhere/data/initial-password"
EOF
}

# ---- the runs --------------------------------------------------------------

# run_suite NAME SERVER REPOSITORIES [TESTS…]: all tests, or each group of them by itself, with the settings that
# $work/NAME.settings and $work/NAME.GROUP.settings list, if these are there. The report is in $work/NAME.
run_suite() {
  local name=$1 server=$2 repositories=$3 group report
  mkdir "$work/$name"
  shift 3
  for group in "${@:-}"; do
    report=$work/$name/${group:-all}
    mkdir "$report"
    # Its exit status is 0 too where it could not begin, so only the report counts.
    suite_environment "$name" "$server" "$repositories" "$group" "$report" timeout --kill-after=10 600 "$work/suite" \
      </dev/null >"$report/log" 2>&1 || true
    [[ -s $report/junit.xml && -s $report/results.yaml ]] ||
      { cat "$report/log" >&2; refuse "the suite wrote no report of $name; its output is above"; }
    python3 "$here/cases.py" "$report/junit.xml" >"$report/cases.json"
    settings_and_states "$report/results.yaml" >>"$work/$name/states"
  done
  jq -s 'add | map(.name |= ltrimstr("OCI Conformance Test/"))' "$work/$name"/*/cases.json >"$work/$name/cases.json"
  sort -u -o "$work/$name/states" "$work/$name/states"
}

# suite_environment NAME SERVER REPOSITORIES TESTS REPORT COMMAND…: what this shell's environment says of OCI_* is not for it.
suite_environment() (
  local variable file settings=()
  for variable in "${!OCI_@}"; do unset "$variable"; done
  for file in "$work/$1.settings" "$work/$1.$4.settings"; do
    [[ ! -e $file ]] || mapfile -t -O "${#settings[@]}" settings <"$file"
  done
  [[ -z $4 ]] || settings+=("OCI_FILTER_TEST=OCI Conformance Test/$4")
  export SSL_CERT_FILE=$work/$2/certs/ca.crt OCI_TLS=enabled OCI_REPO1=$3/one OCI_REPO2=$3/two OCI_USERNAME=admin OCI_VERSION=dev
  export OCI_LOG=error OCI_RESULTS_DIR=$5 "${settings[@]}"
  OCI_REGISTRY=$(cat "$work/$2/name")
  OCI_PASSWORD=$(password "$2")
  export OCI_REGISTRY OCI_PASSWORD
  "${@:6}"
)

# One line each, such as `config.apis.blobs.delete true` and `apis.Blob get Pass`, with a tab between.
settings_and_states() {
  awk '
    {
      match($0, /^ */)
      depth = RLENGTH / 2
      line = substr($0, RLENGTH + 1)
      key[depth] = line
      sub(/:.*/, "", key[depth])
      name = key[0]
      for (i = 1; i <= depth; i++) name = name "." key[i]
      if (sub(/^[^:]*: /, "", line)) print name "\t" line
    }' "$1"
}

# What there is for the mirror to read: all that the suite pushes, told not to delete any of it, and can read there itself. What
# fails of that run is not looked at, since it fails against the built-in registry too.
fill_elsewhere() {
  printf 'OCI_API_%s_DELETE=false\n' BLOBS MANIFESTS TAGS >"$work/kept.settings"
  run_suite kept elsewhere kept
  local kind list tags
  tags=$(ask elsewhere /v2/kept/one/tags/list | jq -r '.tags[]')
  printf '%s\n' "$tags" >"$work/kept/tags"
  for kind in manifests blobs referrers; do
    jq -r --arg kind "$kind" '.[].exchanges | split("~~~ REQUEST ~~~\n")[] | select(contains("\nStatus: 200\n")) |
      capture("^Method: GET\nURL: [^\n]*/v2/kept/one/\($kind)/(?<digest>sha[0-9]*:[0-9a-f]+)[\n?]").digest' "$work/kept/cases.json" |
      sort -u >"$work/kept/$kind"
  done
  [[ $(wc -l <"$work/kept/tags") -ge 15 && $(wc -l <"$work/kept/manifests") -ge 40 && $(wc -l <"$work/kept/blobs") -ge 80 &&
    $(wc -l <"$work/kept/referrers") -ge 4 ]] ||
    refuse "too little was pushed for the mirror to read: $(wc -l "$work"/kept/{tags,manifests,blobs,referrers})"
  printf 'OCI_API_PUSH=false\nOCI_API_MANIFESTS_DIGEST_HEADER=false\n' >"$work/mirror.settings"
  for list in tags manifests blobs referrers; do
    printf 'OCI_RO_DATA_%s=%s\n' "${list^^}" "$(paste -sd' ' "$work/kept/$list")"
  done >"$work/mirror.read-only.settings"
}

# ---- the verdict -----------------------------------------------------------

judge() {
  local target=$1 report=$work/$1 unexplained off problems=0
  # The tests that failed, with the requests and answers of each.
  jq -r --arg target "$target" '.[] | select(.state != "passed" and .state != "skipped") |
    "FAILED \($target): \(.name)\n    \(.why | gsub("\n"; "\n    "))",
    (.exchanges | split("~~~ REQUEST ~~~\n")[1:][] | [scan("(?m)^(?:Method|URL|Status): (.*)$")[0]] | "      \(join(" "))")' \
    "$report/cases.json"
  jq -r --arg target "$target" 'map(select(.state == "skipped")) | group_by([.name, .why])[] |
    "skipped \($target): \(.[0].name), \(length) times: \(.[0].why | gsub("\n"; ", ") | if . == "" then "switched off" else . end)"' \
    "$report/cases.json"
  unexplained=$(jq -r 'map(select(.state == "skipped") | .name) | unique[]' "$report/cases.json" |
    grep -vxF -f <(may_be_skipped "$target") || true)
  if [[ -n $unexplained ]]; then
    printf 'skipped for %s and not on the list of what may be:\n%s\n' "$target" "$unexplained"
    problems=1
  fi
  off=$(sed -n 's/^config\.\([^\t]*\)\tfalse$/\1/p' "$report/states" | sort)
  if [[ $off != "$(switched_off "$target" | sort)" ]]; then
    printf 'switched off for %s is not what should be, but:\n%s\n' "$target" "$off"
    problems=1
  fi
  local -i tests apis kinds passed
  read -r tests apis kinds < <(at_least "$target")
  passed=$(jq 'map(select(.state == "passed")) | length' "$report/cases.json")
  if [[ $passed -lt $tests || $(grep -c $'^apis\..*\tPass$' "$report/states") -lt $apis ||
    $(grep -c $'^data\..*\tPass$' "$report/states") -lt $kinds ]]; then
    printf 'too little passed for %s: of APIs and kinds of data, these did not:\n' "$target"
    sed -n '/^\(apis\|data\)\./!d; /\tPass$/!p' "$report/states"
    problems=1
  fi
  printf '%s: ' "$target"
  counts "$report/cases.json"
  jq -e 'all(.[]; .state == "passed" or .state == "skipped")' "$report/cases.json" >/dev/null || problems=1
  return "$problems"
}

# counts FILE…: of all of them together.
counts() {
  jq -rs 'add | map(.state) | {passed: map(select(. == "passed")) | length, skipped: map(select(. == "skipped")) | length, all: length} |
    "\(.passed) passed, \(.all - .passed - .skipped) failed, \(.skipped) skipped"' "$@"
}

# A test of our own among the mirror's, of what the suite does not look at where it only reads.
look_for_digests() {
  local digest told wrong=
  while read -r digest; do
    told=$(ask gateway "/v2/mirror/kept/one/manifests/$digest" --head | tr -d '\r' | sed -n 's/^docker-content-digest: //Ip' || true)
    [[ $told == "$digest" ]] || wrong+="Docker-Content-Digest of $digest is '$told'"$'\n'
  done <"$work/kept/manifests"
  jq --arg wrong "$wrong" '. + [{name: "read-only/Docker-Content-Digest of manifests", state: (if $wrong == "" then "passed" else "failure" end),
    why: $wrong, exchanges: ""}]' "$work/mirror/cases.json" >"$work/mirror/more.json"
  mv "$work/mirror/more.json" "$work/mirror/cases.json"
}

clean_up() {
  local server
  for server in "${servers[@]}"; do
    { kill -TERM "$server" 2>/dev/null && wait "$server" 2>/dev/null; } || true
  done
  if [[ -n ${DOCKGATE_E2E_KEEP:-} ]]; then
    printf 'kept: %s\n' "$work"
  else
    rm -rf "$work"
  fi
}

main "$@"
