#!/usr/bin/env bash
# helm 4: charts in the registry.
# shellcheck source=lib.sh
source "${BASH_SOURCE[0]%/*}/lib.sh"

PATH=${BASH_SOURCE[0]%/*}/../../.test/clients/helm:$PATH
charts=oci://$secure/team/charts
export HELM_REGISTRY_CONFIG=$place/registry.json HELM_CACHE_HOME=$place/cache HELM_CONFIG_HOME=$place/config HELM_DATA_HOME=$place/data

helm() { bounded helm "$@"; }
with_ca() { helm "$@" --ca-file "$ca"; }
login() { with_ca registry login "$secure" --username "$1" --password-stdin <<<"$2"; }

# chart NAME VERSION: packs a chart, prints the file.
chart() {
  local tree=$place/tree/$1
  mkdir -p "$tree/templates"
  printf 'apiVersion: v2\nname: %s\nversion: %s\n' "$1" "$2" >"$tree/Chart.yaml"
  printf 'apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  marker: "%s"\n' "$1" "$marker" >"$tree/templates/map.yaml"
  helm package "$tree" --destination "$place" >/dev/null
  printf '%s/%s-%s.tgz' "$place" "$1" "$2"
}

logs_in() {
  refused 'unauthorized|401|denied' login admin wrong
  login admin "$password"
}

pushes_and_pulls() {
  local version
  for version in 1.0.0 1.2.0 2.0.0+build.3; do
    with_ca push "$(chart app "$version")" "$charts"
  done
  mkdir -p "$place/pulled"
  with_ca pull "$charts/app" --version 1.2.0 --destination "$place/pulled"
  cmp "$place/app-1.2.0.tgz" "$place/pulled/app-1.2.0.tgz"
  with_ca pull "$charts/app" --version 2.0.0+build.3 --destination "$place/pulled"
  cmp "$place/app-2.0.0+build.3.tgz" "$place/pulled/app-2.0.0+build.3.tgz"
}

# It lists the tags to find the newest that fits.
lists_to_choose() {
  same 'version: 1.2.0' "$(with_ca show chart "$charts/app" --version '^1' | grep '^version:')"
  same 'version: 2.0.0+build.3' "$(with_ca show chart "$charts/app" | grep '^version:')"
}

renders_and_depends() {
  with_ca template "$charts/app" --version 1.0.0 | grep -q "marker: \"$marker\"" || fail 'the chart was not rendered'
  mkdir -p "$place/tree/parent"
  printf 'apiVersion: v2\nname: parent\nversion: 1.0.0\ndependencies:\n  - {name: app, version: "~1.0", repository: "%s"}\n' "$charts" \
    >"$place/tree/parent/Chart.yaml"
  # `dependency update` has no --ca-file.
  SSL_CERT_FILE=$ca helm dependency update "$place/tree/parent"
  cmp "$place/app-1.0.0.tgz" "$place/tree/parent/charts/app-1.0.0.tgz"
}

without_a_login() {
  helm registry logout "$secure"
  refused 'unauthorized|401|denied|basic credential' with_ca push "$place/app-1.0.0.tgz" "$charts"
  refused 'unauthorized|401|denied|basic credential' with_ca pull "$charts/app" --version 1.0.0 --destination "$place/pulled"
}

wrong_password() {
  docker_login "$place/wrong" admin wrong
  refused 'unauthorized|401|denied' with_ca push "$place/app-1.0.0.tgz" "$charts" --registry-config "$place/wrong/config.json"
  refused 'unauthorized|401|denied' with_ca pull "$charts/app" --version 1.0.0 --destination "$place/pulled" --username admin --password wrong
}

no_right() {
  login dev developer-password
  refused 'denied|403' with_ca push "$place/app-1.0.0.tgz" "oci://$secure/elsewhere"
  with_ca push "$place/app-1.0.0.tgz" "oci://$secure/team/of-dev"
}

gateway_start
user_add dev developer-password
check 'login, and a wrong password' logs_in
check 'push and pull' pushes_and_pulls
check 'the newest that fits is found in the list' lists_to_choose
check 'a chart is rendered, and another depends on it' renders_and_depends
check 'without a login it is refused' without_a_login
check 'a wrong password is refused' wrong_password
check 'no right is refused' no_right
