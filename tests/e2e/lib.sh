# shellcheck shell=bash
# What every client's script starts from: the gateway, the checks, the waiting.
# shellcheck disable=SC2034  # the scripts that source this use its variables
set -euo pipefail

: "${work:?run tests/e2e/run.sh, not this script}" "${results:?}" "${client:?}" "${BINARY:?}"

secure=192.0.2.10:5000  # the main listener, over TLS, at an address that no client trusts by itself
local_name=localhost:5000
plain=127.0.0.1:5080    # a second listener, plain HTTP
admin=127.0.0.1:5001
more_configuration=     # what a script adds to gateway.toml
engine_options=()       # and to dockerd's command line
place=$work/$client     # this client's own files
gateway=$place/gateway
images=$work/images
marker=$(cat "$images/marker")
export HOME=$place
mkdir -p "$place" "$gateway"
rm -rf "$work"/etc/{docker,containers}/certs.d  # whom the client before trusted

daemons=()

# ---- the gateway -----------------------------------------------------------

gateway_start() {
  cat >"$gateway/gateway.toml" <<EOF
[listen.main]
address = "0.0.0.0:5000"

[listen.plain]
address = "$plain"
protocol = "plain"

[identity]
htpasswd = "htpasswd"
groups = { developers = ["dev"] }

[[access]]
who = ["anyone"]
repositories = ["public/**"]
actions = ["pull"]

[[access]]
who = ["group:developers"]
repositories = ["team/**"]
actions = ["pull", "push"]

[[access]]
who = ["user:admin"]
repositories = ["**"]
actions = ["*"]

[registry]
data = "data"

[admin]
address = "$admin"

$more_configuration
EOF
  rm -f "$gateway/pid" "$gateway/exit"
  {
    "$BINARY" serve --config "$gateway/gateway.toml" </dev/null >>"$gateway/log" 2>&1 &
    printf '%s\n' "$!" >"$gateway/pid"
    status=0
    wait "$!" || status=$?
    printf '%s\n' "$status" >"$gateway/exit"
  } &
  if ! await 60 ready; then
    printf '%s: the gateway did not become ready; its log:\n' "$client" >&2
    sed 's/^/    /' "$gateway/log" >&2
    exit 1
  fi
  password=$(tr -d '\n' <"$gateway/data/initial-password")
  ca=$gateway/certs/ca.crt
  [[ -s $ca ]] || { printf '%s: no CA at %s\n' "$client" "$ca" >&2; exit 1; }
}

ready() { [[ ! -e $gateway/exit ]] && curl --fail --silent --output /dev/null "http://$admin/readyz"; }

# Adds a user with Apache's own tool, as an operator would while the gateway runs.
user_add() {
  htpasswd -bB -C 5 "$gateway/htpasswd" "$1" "$2" 2>/dev/null
  await 10 curl --fail --silent --output /dev/null --cacert "$ca" --user "$1:$2" "https://$secure/v2/" ||
    { printf '%s: user %s was not let in after htpasswd changed\n' "$client" "$1" >&2; exit 1; }
}

gateway_stops_cleanly() {
  kill -TERM "$(cat "$gateway/pid")"
  await 70 test -s "$gateway/exit" || fail "still running 70 s after SIGTERM"
  same 0 "$(cat "$gateway/exit")"
}

# clients_trust NAME…: docker, podman and their kin know the gateway's CA by these names, and others by SSL_CERT_FILE.
clients_trust() {
  local name
  for name in "$@"; do
    mkdir -p "/etc/docker/certs.d/$name" "/etc/containers/certs.d/$name"
    cp "$ca" "/etc/docker/certs.d/$name/ca.crt"
    cp "$ca" "/etc/containers/certs.d/$name/ca.crt"
  done
  cp "$ca" "$SSL_CERT_FILE"
  printf '{}' >"$REGISTRY_AUTH_FILE"
}

# docker_login DIRECTORY USER PASSWORD [NAME]: the config.json that `docker login` would leave there, whether or not it would be let in.
docker_login() {
  mkdir -p "$1"
  jq -n --arg name "${4:-$secure}" --arg auth "$(printf '%s:%s' "$2" "$3" | base64 --wrap 0)" '{auths: {($name): {auth: $auth}}}' >"$1/config.json"
}

# A docker engine of this client's own. No bridge and no firewall rules: the containers need no network, so the machine's
# stays as it is.
engine_start() {
  local file=()
  [[ ! -e $place/daemon.json ]] || file=(--config-file "$place/daemon.json")
  export DOCKER_HOST=unix://$place/docker.sock
  daemon_start dockerd 60 engine_answers \
    dockerd --data-root "$place/data" --exec-root "$place/exec" --pidfile "$place/docker.pid" --host "$DOCKER_HOST" \
    --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs "${file[@]}" "${engine_options[@]}"
  command docker load --quiet --input "$images/single.tar" >/dev/null
}

engine_answers() { command docker version; }

# engine_mirror URL: where the engine asks for what is Docker Hub's, when it starts or from now on.
engine_mirror() {
  printf '{"registry-mirrors": ["%s"]}' "$1" >"$place/daemon.json"
  [[ -e $place/docker.pid ]] || return 0
  kill -HUP "$(cat "$place/docker.pid")"
  await 10 engine_has_mirror "$1" || fail "dockerd does not take the mirror $1"
}

engine_has_mirror() { [[ $(command docker info --format '{{json .RegistryConfig.Mirrors}}') == "[\"$1/\"]" ]]; }

# A containerd of this client's own; it answers at $socket.
containerd_start() {
  socket=$place/containerd.sock
  cat >"$place/containerd.toml" <<EOF
version = 2
root = "$place/containerd"
state = "$place/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$socket"
[ttrpc]
address = "$socket.ttrpc"
EOF
  daemon_start containerd 60 containerd_answers containerd --config "$place/containerd.toml"
}

containerd_answers() { command ctr --address "$socket" version; }
ctr() { bounded ctr --address "$socket" --namespace e2e "$@"; }
image_digest() { ctr images list "name==$1" | awk 'NR == 2 { print $3 }'; }

# hosts_file NAMESPACE SERVER URL [LINE]: in $place/hosts; containerd asks URL, which is the gateway, and then SERVER.
hosts_file() {
  mkdir -p "$place/hosts/$1"
  printf 'server = "%s"\n[host."%s"]\n  capabilities = ["pull", "resolve"]\n  ca = "%s"\n  %s\n' "$2" "$3" "$ca" "${4:-}" \
    >"$place/hosts/$1/hosts.toml"
}

# Root's podman without systemd.
podman_settings() {
  export CONTAINERS_CONF=$place/containers.conf
  printf '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\ntmp_dir = "%s"\n' "$place/tmp" >"$CONTAINERS_CONF"
}

# podman's and buildah's storage: this client's own, not the machine's.
container_storage() {
  export CONTAINERS_STORAGE_CONF=$place/storage.conf
  printf '[storage]\ndriver = "vfs"\ngraphroot = "%s"\nrunroot = "%s"\n' "$place/root" "$place/runroot" >"$CONTAINERS_STORAGE_CONF"
}

# ---- checks ----------------------------------------------------------------

# check NAME COMMAND…: runs the command by itself under `set -e` and tells ok or FAILED.
check() {
  local name="$client: $1" log=$place/check.log status=0
  shift
  : >"$log"
  : >"$place/measured"
  # In the background, because a `set -e` that is part of a condition would be ignored.
  (
    trap - EXIT
    set -euo pipefail
    exec 9>&2
    BASH_XTRACEFD=9
    set -x
    "$@"
  ) </dev/null >>"$log" 2>&1 &
  wait $! || status=$?
  if [[ $status -eq 0 ]]; then
    printf 'ok %s\n' "$name" | tee -a "$results"
    sed 's/^/  /' "$place/measured"
    return
  fi
  printf 'FAILED %s: %s\n' "$name" "$(grep -av '^+' "$log" | tail -n 1)" | tee -a "$results"
  printf '  exit status %d; what was run and said:\n' "$status"
  tail -n 40 "$log" | sed 's/^/    /'
  if [[ -s $gateway/log ]]; then
    printf '  the end of the gateway'\''s log:\n'
    tail -n 20 "$gateway/log" | sed 's/^/    /'
  fi
}

# measured WORD…: what the check tells besides.
measured() { printf '%s\n' "$*" | tee -a "$place/measured"; }

fail() {
  set +x
  printf '%s\n' "$*" >&2
  exit 1
}

same() { [[ -n $1 && $1 == "$2" ]] || fail "expected '$1', got '$2'"; }

# refused PATTERN COMMAND…: the command must fail, and say so in words that match.
refused() {
  local pattern=$1 said status=0
  shift
  said=$("$@" 2>&1) || status=$?
  printf '%s\n' "$said"
  [[ $status -ne 0 ]] || fail "this should have been refused: $*"
  [[ $status -ne 124 ]] || fail "no answer in time: $*"
  grep -qiE -- "$pattern" <<<"$said" || fail "the refusal does not say '$pattern': $said"
  ! grep -qiE 'invalid character|error parsing HTTP|unmarshal' <<<"$said" || fail "the error body was not understood: $said"
}

# ---- waiting ---------------------------------------------------------------

# await SECONDS COMMAND…: until the command succeeds; fails at the deadline.
await() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    [[ $SECONDS -lt $deadline ]] || return 1
    sleep 0.1
  done
}

gone() { ! kill -0 "$1"; }

# bounded COMMAND…: no client may hang the suite.
bounded() {
  local -
  set +x
  timeout --kill-after=10 120 "$@"
}

# daemon_start NAME SECONDS TEST COMMAND…: starts it, waits until TEST (a function) succeeds.
daemon_start() {
  local name=$1 seconds=$2 test=$3
  shift 3
  "$@" </dev/null >"$place/$name.log" 2>&1 &
  daemons+=("$!")
  await "$seconds" "$test" && return
  printf '%s: %s did not start; its log:\n' "$client" "$name" >&2
  tail -n 40 "$place/$name.log" | sed 's/^/    /' >&2
  exit 1
}

stop_all() {
  local pid
  [[ -e $gateway/exit ]] || daemons+=("$(cat "$gateway/pid")")
  for pid in "${daemons[@]}"; do
    kill -TERM "$pid" 2>/dev/null || continue
    await 30 gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
  done
}
trap stop_all EXIT
