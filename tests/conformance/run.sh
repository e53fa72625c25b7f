#!/usr/bin/env bash
# Runs the OCI distribution conformance suite against the real binary:
# tests/conformance/run.sh [BINARY]
#
# All four workflows are on. A skipped test fails the run unless it is in
# `may_be_skipped` with the reason why this program need not pass it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=github.com/opencontainers/distribution-spec/conformance

# One test per line, as the suite names it.
may_be_skipped() {
  cat <<'EOF'
Get tag name from environment
Populate registry with test tags (no push)
Cross-mounting of nonexistent blob should yield session id
Cross-mounting without from, and automatic content discovery enabled should return a 201
EOF
  # 1, 2: for a registry that cannot be pushed to; the suite pushes here.
  # 3: its condition is that the mount before it was refused, and here it succeeds.
  # 4: a mount without `from` is not guessed (what would it take the permission from?);
  #    the test of the opposite case is on.
}

main() {
  local binary=${1:-$here/../../target/release/dockgate}
  [[ -x $binary ]] || refuse "no program at $binary: build it first with 'cargo build --release --locked'"
  binary=$(realpath "$binary")
  local program
  for program in go curl jq; do
    command -v "$program" >/dev/null || refuse "$program is not installed; run tests/install.sh"
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/dockgate-conformance.XXXXXX")
  trap clean_up EXIT
  build_suite
  gateway_start "$binary"
  run_suite
  judge
}

refuse() {
  printf 'tests/conformance: %s\n' "$*" >&2
  exit 1
}

# The version and the checksums are those of go.mod and go.sum; nothing else is looked up.
build_suite() {
  (cd "$here" && GOFLAGS='-mod=readonly -buildvcs=false' GOTOOLCHAIN=local CGO_ENABLED=0 go test -c -o "$work/suite" "$suite") ||
    refuse "the suite does not build: see above"
}

gateway_start() {
  local line
  cat >"$work/gateway.toml" <<EOF
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
  "$1" serve --config "$work/gateway.toml" </dev/null >"$work/gateway.log" 2>&1 &
  gateway=$!
  local deadline=$((SECONDS + 60))
  until line=$(grep -m 1 ' is ready: ' "$work/gateway.log"); do
    if [[ $SECONDS -ge $deadline ]] || ! kill -0 "$gateway" 2>/dev/null; then
      cat "$work/gateway.log" >&2
      refuse "the gateway did not become ready; its log is above"
    fi
    sleep 0.1
  done
  root=https://localhost:$(sed -n 's/.* main=127\.0\.0\.1:\([0-9]*\).*/\1/p' <<<"$line")
  # The suite itself does not verify certificates, so the CA is checked here.
  curl --silent --show-error --output /dev/null --cacert "$work/certs/ca.crt" "$root/v2/"
}

run_suite() {
  local password
  password=$(tr -d '\n' <"$work/data/initial-password")
  mkdir "$work/report"
  (
    cd "$work/report"
    export OCI_ROOT_URL=$root OCI_NAMESPACE=conformance/one OCI_CROSSMOUNT_NAMESPACE=conformance/two
    export OCI_USERNAME=admin OCI_PASSWORD=$password SSL_CERT_FILE=$work/certs/ca.crt
    export OCI_TEST_PULL=1 OCI_TEST_PUSH=1 OCI_TEST_CONTENT_DISCOVERY=1 OCI_TEST_CONTENT_MANAGEMENT=1
    export OCI_AUTOMATIC_CROSSMOUNT=0 OCI_HIDE_SKIPPED_WORKFLOWS=0 OCI_REPORT_DIR=$work/report OCI_DEBUG=0
    timeout --kill-after=10 600 "$work/suite" -test.timeout 590s -ginkgo.no-color -ginkgo.json-report "$work/report/report.json"
  ) </dev/null >"$work/suite.log" 2>&1 || true
  [[ -s $work/report/report.json ]] || { cat "$work/suite.log" >&2; refuse "the suite wrote no report; its output is above"; }
}

judge() {
  local specs=$work/specs.json passed failed unexplained problems=0
  jq '[.[].SpecReports[] | select(.LeafNodeType == "It") |
    {state: .State, name: .LeafNodeText, path: (.ContainerHierarchyTexts[1:] | join(", ")), why: (.Failure.Message // "")}]' \
    "$work/report/report.json" >"$specs"
  jq -r '.[] | select(.state != "passed" and .state != "skipped") | "FAILED \(.path): \(.name)\n    \(.why)"' "$specs"
  unexplained=$(jq -r '.[] | select(.state == "skipped") | .name' "$specs" | grep -vxF -f <(may_be_skipped) || true)
  jq -r '.[] | select(.state == "skipped") | "skipped \(.path): \(.name)"' "$specs"
  passed=$(jq '[.[] | select(.state == "passed")] | length' "$specs")
  failed=$(jq '[.[] | select(.state != "passed" and .state != "skipped")] | length' "$specs")
  if [[ -n $unexplained ]]; then
    printf 'skipped and not on the list of what may be:\n%s\n' "$unexplained"
    problems=1
  fi
  [[ $failed -eq 0 && $passed -gt 0 ]] || { tail -n 40 "$work/gateway.log" | sed 's/^/  gateway: /'; problems=1; }
  printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$(jq '[.[] | select(.state == "skipped")] | length' "$specs")"
  return "$problems"
}

clean_up() {
  [[ -z ${gateway:-} ]] || { kill -TERM "$gateway" 2>/dev/null && wait "$gateway" 2>/dev/null; } || true
  if [[ -n ${DOCKGATE_E2E_KEEP:-} ]]; then
    printf 'kept: %s\n' "$work"
  else
    rm -rf "$work"
  fi
}

main "$@"
