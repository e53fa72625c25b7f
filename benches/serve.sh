#!/usr/bin/env bash
# Measures the program beside nginx and docker's registry, in one run and with one certificate: CPU seconds of the server
# for what it sends and takes. Prints a table of medians. `make bench` calls it.
#   runs=5 seconds=5 cases='blobs manifests logins uploads legacy' benches/serve.sh [PROGRAM]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=deploy/packages.sh
source "$root/deploy/packages.sh"
binary=$(realpath "${1:-${CARGO_TARGET_DIR:-$root/target}/release/dockgate}")
runs=${runs:-5}
seconds=${seconds:-5}
cases=${cases:-blobs manifests logins uploads legacy}
pushes=100 # of 1 MB each, in a run
user=bench:bench-password

work=$(mktemp -d "${TMPDIR:-/tmp}/dockgate-bench.XXXXXX")
declare -A pids=() ports=()

main() {
  trap leave EXIT
  [[ -x $binary ]] || { printf '%s is not there: make build\n' "$binary" >&2; exit 1; }
  need_packages 'For the measurements' apache2-utils curl docker-registry nginx-light openssl procps wrk
  make_material
  start_nginx v1 '' "root $work/static;"
  start_gateway memory 128MiB false
  start_gateway logged 128MiB true
  start_gateway file 0 false
  start_nginx nginx ssl "root $work/static;"
  start_nginx proxy ssl "location / { $to_v1 }"
  start_nginx proxy_login ssl "location / { auth_basic v1; auth_basic_user_file $work/htpasswd; $to_v1 }"
  start_registry registry ''
  start_registry guarded "auth: { htpasswd: { realm: bench, path: $work/htpasswd } }"
  request --fail --output "$work/authority.pem" "$(url memory /token/certificates)"
  start_registry tokens \
    "auth: { token: { realm: '$(url memory /token)', service: bench, issuer: dockgate, rootcertbundle: $work/authority.pem } }"
  fill
  local run case
  for ((run = 1; run <= runs; run++)); do
    printf 'run %d of %d\n' "$run" "$runs" >&2
    for case in $cases; do "$case"; done
  done
  report
}

leave() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf --one-file-system "$work"
}

# ---- what is served --------------------------------------------------------

make_material() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost \
    -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$work/key.pem" -out "$work/certificate.pem" 2>/dev/null
  htpasswd -bBc -C 10 "$work/htpasswd" "${user%%:*}" "${user#*:}" 2>/dev/null
  mkdir "$work/static"
  head -c 64M /dev/urandom >"$work/static/blob"
  printf '{"architecture":"amd64","os":"linux"}' >"$work/config"
  blob=$(digest_of "$work/static/blob")
  config=$(digest_of "$work/config")
  local layer padding
  layer="{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"$blob\",\"size\":67108864}"
  padding=$(printf 'x%.0s' {1..1000})
  make_v1_material
  printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":37},"layers":[%s],"annotations":{"padding":"%s"}}' \
    "$manifest_type" application/vnd.oci.image.config.v1+json "$config" "$layer" "$padding" >"$work/static/manifest"
}

# What a v1 registry would answer; the layer is the blob, hard-linked.
make_v1_material() {
  local images=$work/static/v1/images/$image
  mkdir -p "$images" "$work/static/v1/repositories/public/app"
  printf 'true' >"$work/static/v1/_ping"
  printf '{"v1": "%s"}' "$image" >"$work/static/v1/repositories/public/app/tags"
  printf '[{"id": "%s"}]' "$image" >"$work/static/v1/repositories/public/app/images"
  printf '["%s"]' "$image" >"$images/ancestry"
  printf '{"id": "%s", "comment": "%s"}' "$image" "$(printf 'x%.0s' {1..1400})" >"$images/json"
  ln "$work/static/blob" "$images/layer"
}

manifest_type=application/vnd.oci.image.manifest.v1+json
image=$(printf '5%.0s' {1..64})

digest_of() { printf 'sha256:%s' "$(sha256sum "$1" | cut -d' ' -f1)"; }

# ---- who serves it ---------------------------------------------------------

# start_gateway NAME MEMORY_OBJECT_MAX ACCESS_LOG
start_gateway() {
  local place=$work/$1
  mkdir -p "$place/upstreams"
  printf 'kind = "legacy"\npeers = ["http://127.0.0.1:%s"]\n' "${ports[v1]}" >"$place/upstreams/legacy-v1.toml"
  ports[$1]=$(free_port)
  cat >"$place/gateway.toml" <<EOT
[listen.main]
address = "127.0.0.1:${ports[$1]}"
protocol = "tls"
[tls]
certificate = "$work/certificate.pem"
key = "$work/key.pem"
[identity]
htpasswd = "$work/htpasswd"
[identity.token]
services = ["bench"]
[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]
[[access]]
who = ["authenticated"]
repositories = ["**"]
actions = ["pull", "push"]
[cache]
memory = "512MiB"
memory_object_max = "$2"
[admin]
address = ""
[log]
access = $3
EOT
  "$binary" serve --config "$place/gateway.toml" </dev/null >"$place/log" 2>&1 &
  pids[$1]=$!
  await "$1"
}

# What nginx is told where it stands before the v1 registry. Streaming, as a layer wants it, and with connections that are kept.
to_v1='proxy_pass http://v1; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;'

# start_nginx NAME SSL_OR_NOTHING LINES_OF_ITS_SERVER
start_nginx() {
  local place=$work/$1.nginx
  mkdir "$place"
  ports[$1]=$(free_port)
  cat >"$place/nginx.conf" <<EOT
user $(id -un);
daemon off;
pid $place/pid;
error_log $place/log;
worker_processes auto;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  open_file_cache max=100;
  default_type application/octet-stream;
  client_body_temp_path $place/body;
  proxy_temp_path $place/proxy;
  fastcgi_temp_path $place/fastcgi;
  uwsgi_temp_path $place/uwsgi;
  scgi_temp_path $place/scgi;
  upstream v1 { server 127.0.0.1:${ports[v1]}; keepalive 64; keepalive_requests 100000000; }
  server {
    listen 127.0.0.1:${ports[$1]} $2;
    ssl_certificate $work/certificate.pem;
    ssl_certificate_key $work/key.pem;
    ssl_protocols TLSv1.3;
    $3
  }
}
EOT
  nginx -c "$place/nginx.conf" </dev/null >"$work/$1.log" 2>&1 &
  pids[$1]=$!
  await "$1"
}

# start_registry NAME LINE_FOR_ITS_CONFIGURATION; all of them keep what they have in one place.
start_registry() {
  ports[$1]=$(free_port)
  cat >"$work/$1.yml" <<EOT
version: 0.1
log: { level: error, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $work/registry }, cache: { blobdescriptor: inmemory } }
http:
  addr: 127.0.0.1:${ports[$1]}
  tls: { certificate: $work/certificate.pem, key: $work/key.pem }
$2
EOT
  docker-registry serve "$work/$1.yml" </dev/null >"$work/$1.log" 2>&1 &
  pids[$1]=$!
  await "$1"
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  printf '%d' "$port"
}

await() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    kill -0 "${pids[$1]}" 2>/dev/null || break
    if request --output /dev/null "$(url "$1" /v2/)" 2>/dev/null; then return; fi
    sleep 0.1
  done
  printf '%s does not serve; its log:\n' "$1" >&2
  tail -n 20 "$work/$1/log" "$work/$1.log" >&2 2>/dev/null || true
  exit 1
}

url() {
  local scheme=https
  [[ $1 != v1 ]] || scheme=http
  printf '%s://localhost:%s%s' "$scheme" "${ports[$1]}" "$2"
}

request() { curl --silent --show-error --http1.1 --cacert "$work/certificate.pem" "$@"; }

# The same blob and manifest everywhere, and each read once, so that what is to be in memory is.
fill() {
  local server
  for server in memory logged file registry; do
    push_blob "$server" "$work/config" "$config"
    push_blob "$server" "$work/static/blob" "$blob"
    request --fail --user "$user" --output /dev/null --upload-file "$work/static/manifest" \
      --header "Content-Type: $manifest_type" "$(url "$server" /v2/public/app/manifests/v1)"
    request --fail "$(url "$server" "/v2/public/app/blobs/$blob")" | cmp - "$work/static/blob"
    request --fail --header "Accept: $manifest_type" "$(url "$server" /v2/public/app/manifests/v1)" | cmp - "$work/static/manifest"
  done
  # So that the gateway knows whose the image is; nginx asks nobody.
  request --fail "$(url memory /v1/repositories/public/app/tags)" | cmp - "$work/static/v1/repositories/public/app/tags"
  for server in memory proxy; do request --fail "$(url "$server" "/v1/images/$image/layer")" | cmp - "$work/static/blob"; done
}

push_blob() {
  local location
  location=$(request --fail --user "$user" --request POST --output /dev/null --dump-header - "$(url "$1" /v2/public/app/blobs/uploads/)" |
    tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
  [[ $location == http* ]] || location=$(url "$1" "$location")
  local separator='?'
  [[ $location != *\?* ]] || separator='&'
  request --fail --user "$user" --output /dev/null --upload-file "$2" \
    --header 'Content-Type: application/octet-stream' "$location${separator}digest=$3"
}

# ---- measuring -------------------------------------------------------------

blobs() {
  load blob memory "/v2/public/app/blobs/$blob" 4
  load blob file "/v2/public/app/blobs/$blob" 4
  load blob nginx /blob 4
  load blob registry "/v2/public/app/blobs/$blob" 4
}

manifests() {
  load manifest memory /v2/public/app/manifests/v1 32
  load manifest logged /v2/public/app/manifests/v1 32
  load manifest nginx /manifest 32
  load manifest registry /v2/public/app/manifests/v1 32
}

# Few connections: what is begun and not done when the time is up costs without being counted, and here it costs much.
logins() {
  local basic
  basic="Authorization: Basic $(printf %s "$user" | base64)"
  load login memory /v2/public/app/manifests/v1 2 "$basic"
  load login guarded /v2/public/app/manifests/v1 2 "$basic"
  load token memory /v2/public/app/manifests/v1 32 "Authorization: Bearer $(token dockgate)"
  load token tokens /v2/public/app/manifests/v1 32 "Authorization: Bearer $(token bench)"
}

# token SERVICE: a token to pull by.
token() {
  request --fail --user "$user" "$(url memory "/token?service=$1&scope=repository:public/app:pull")" | sed 's/.*"token":"\([^"]*\)".*/\1/'
}

# Image JSON and layers of a v1 registry, through dockgate and through nginx: for anyone, by password and by the index's token.
legacy() {
  local basic token server
  basic="Authorization: Basic $(printf %s "$user" | base64)"
  token=$(request --fail --user "$user" --header 'X-Docker-Token: true' --output /dev/null --dump-header - \
    "$(url memory /v1/repositories/public/app/images)" | tr -d '\r' | sed -n 's/^[Xx]-[Dd]ocker-[Tt]oken: //p')
  for server in memory proxy; do
    load v1-json "$server" "/v1/images/$image/json" 32
    load v1-layer "$server" "/v1/images/$image/layer" 4
  done
  load v1-login memory "/v1/images/$image/json" 2 "$basic"
  load v1-login proxy_login "/v1/images/$image/json" 2 "$basic"
  load v1-token memory "/v1/images/$image/json" 32 "Authorization: Token $token"
}

# load CASE SERVER PATH CONNECTIONS [HEADER]: writes a line "CASE SERVER CPU_SECONDS REQUESTS GIB SECONDS".
load() {
  local before after
  before=$(cpu "${pids[$2]}")
  wrk --threads 2 --connections "$4" --duration "${seconds}s" --timeout 30s --header "Accept: $manifest_type" \
    ${5:+--header "$5"} "$(url "$2" "$3")" >"$work/wrk" 2>&1
  after=$(cpu "${pids[$2]}")
  if grep -E 'Non-2xx|Socket errors' "$work/wrk" >&2; then
    printf '%s of %s failed\n' "$1" "$2" >&2
    exit 1
  fi
  awk -v kind="$1" -v server="$2" -v before="$before" -v after="$after" '
    function gib(text) {
      return text * (text ~ /TB/ ? 1024 : text ~ /GB/ ? 1 : text ~ /MB/ ? 1 / 1024 : text ~ /KB/ ? 1 / 1048576 : 0)
    }
    / requests in / { print kind, server, after - before, $1, gib($5), $4 + 0 }
  ' "$work/wrk" >>"$work/results"
}

# uploads: new blobs each time, else the registries would have them already; half of them by each of two clients.
uploads() {
  local index file server before after began
  rm -rf "$work/blobs"
  mkdir "$work/blobs"
  for ((index = 0; index < pushes; index++)); do
    file=$work/blobs/$index
    head -c 1000000 /dev/urandom >"$file"
    printf '%s %s\n' "$(digest_of "$file")" "$file" >>"$work/blobs/list.$((index % 2))"
  done
  for server in memory registry; do
    before=$(cpu "${pids[$server]}")
    began=$EPOCHREALTIME
    push_list "$server" 0 &
    push_list "$server" 1
    wait "$!"
    after=$(cpu "${pids[$server]}")
    awk -v server="$server" -v cpu="$before $after" -v clock="$began $EPOCHREALTIME" -v pushes="$pushes" 'BEGIN {
      split(cpu, seconds); split(clock, time)
      print "push", server, seconds[2] - seconds[1], pushes, pushes * 1e6 / 2 ^ 30, time[2] - time[1]
    }' >>"$work/results"
  done
}

push_list() {
  BLOBS=$work/blobs/list.$2 wrk --threads 1 --connections 1 --duration 60s --timeout 30s \
    --header "Authorization: Basic $(printf %s "$user" | base64)" --script "$root/benches/push.lua" "$(url "$1" /)" >"$work/wrk.$2" 2>&1 ||
    { cat "$work/wrk.$2" >&2; exit 1; }
}

# CPU seconds of a process and its children, as far as they are alive.
cpu() {
  local pid
  for pid in "$1" $(pgrep -P "$1" || true); do cat "/proc/$pid/stat"; done |
    awk -v hertz="$(getconf CLK_TCK)" '{ sub(/^.*\) /, ""); ticks += $12 + $13 } END { printf "%.2f", ticks / hertz }'
}

# ---- the table -------------------------------------------------------------

report() {
  [[ -z ${results:-} ]] || cp "$work/results" "$results"
  printf '%d runs of %d s; %s\n\n' "$runs" "$seconds" "$(nginx -v 2>&1), $(docker-registry --version)"
  sort "$work/results" | awk '
    function median(list, n,   parts, i, j, swap) {
      n = split(list, parts, " ")
      for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (parts[j] + 0 < parts[i] + 0) { swap = parts[i]; parts[i] = parts[j]; parts[j] = swap }
      return n % 2 ? parts[(n + 1) / 2] : (parts[n / 2] + parts[n / 2 + 1]) / 2
    }
    {
      key = $1 " " $2
      if (!(key in cost)) order[++count] = key
      big = $1 ~ /blob|layer/
      cost[key] = cost[key] " " (big ? $3 / $5 : $3 / $4 * 1e6)
      rate[key] = rate[key] " " (big ? $5 * 1024 / $6 : $4 / $6)
    }
    END {
      print "| case | server | CPU of the server | rate |\n|---|---|---|---|"
      for (i = 1; i <= count; i++) {
        split(order[i], part, " ")
        big = part[1] ~ /blob|layer/
        printf "| %s | %s | %.*f %s | %.0f %s |\n", part[1], part[2], big ? 2 : 1, median(cost[order[i]]),
          big ? "s/GiB" : "µs each", median(rate[order[i]]), big ? "MiB/s" : "a second"
      }
    }'
}

main
