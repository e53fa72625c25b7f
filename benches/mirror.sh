#!/usr/bin/env bash
# Measures dockgate as a mirror beside docker's registry and nginx; installs what that needs. `make storm`, `make trace`
# and `make latency` call it. What follows the word goes to the benchmark: benches/mirror.sh storm --help
#   benches/mirror.sh storm --runners 1,10 --layer 64MiB --servers registry,nginx
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"

main() {
  local what=${1:?storm, trace or latency}
  shift
  "$root/deploy/install-build-needs.sh"
  need_packages 'For the measurements' docker-registry gnuplot-nox nginx-light
  cd "$root"
  [[ $what == storm ]] || exec cargo bench --locked --bench mirror -- "$what" "$@"
  storm "$@"
}

# The plot is drawn from what was measured, also when a server was not.
storm() {
  local csv status=0
  csv=$(realpath "${CARGO_TARGET_DIR:-target}")/storm.csv
  rm -f "$csv"
  cargo bench --locked --bench mirror -- storm --csv "$csv" "$@" || status=$?
  if [[ -s $csv ]]; then
    gnuplot -e "csv='$csv'; svg='${plot:-docs/storm.svg}'" benches/mirror/storm.gnuplot
    printf '\nThe numbers are in %s, the plot in %s.\n' "$csv" "${plot:-docs/storm.svg}"
  fi
  return "$status"
}

main "$@"
