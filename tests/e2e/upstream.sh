# shellcheck shell=bash
# Registries elsewhere, for the scripts that put the gateway before them: Debian's docker-registry with TLS, a CA of its own
# and users; and crane's, plain and without users.
# shellcheck disable=SC2034  # the scripts that source this use its variables

: "${place:?source lib.sh first}" "${images:?}" "${gateway:?}"

upstream=192.0.2.20:5443
upstream_ca=$place/upstream/trust/ca.crt
open=127.0.0.1:5090
multi=$(cat "$images/multi.digest")

# ---- docker-registry -------------------------------------------------------

upstream_make() {
  local home=$place/upstream
  mkdir -p "$home/trust"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj '/CN=an authority elsewhere' \
    -keyout "$home/ca.key" -out "$upstream_ca"
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj '/CN=elsewhere' -keyout "$home/server.key" |
    openssl x509 -req -CA "$upstream_ca" -CAkey "$home/ca.key" -set_serial 1 -days 2 \
      -extfile <(printf 'subjectAltName=IP:%s\n' "${upstream%:*}") -out "$home/server.crt"
  htpasswd -cbB -C 5 "$home/htpasswd" robot robot-password
  htpasswd -bB -C 5 "$home/htpasswd" dev developer-password
  cat >"$home/config.yml" <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: "$home/data"}, delete: {enabled: true}}
http: {addr: "$upstream", secret: e2e, tls: {certificate: "$home/server.crt", key: "$home/server.key"}}
auth: {htpasswd: {realm: elsewhere, path: "$home/htpasswd"}}
EOF
}

upstream_start() {
  [[ -e $upstream_ca ]] || upstream_make >"$place/upstream-made.log" 2>&1
  # To it, a variable REGISTRY_AUTH_FILE would be a part of its configuration.
  env -u REGISTRY_AUTH_FILE docker-registry serve "$place/upstream/config.yml" </dev/null >>"$place/upstream/requests" 2>>"$place/upstream/log" &
  printf '%s\n' "$!" >"$place/upstream/pid"
  await 30 upstream_answers || { cat "$place/upstream/log" >&2; exit 1; }
}

upstream_answers() { ask_upstream v2/; }
ask_upstream() { curl --fail --silent --output /dev/null --cacert "$upstream_ca" --user robot:robot-password "https://$upstream/$1"; }

upstream_stop() {
  kill -TERM "$(cat "$place/upstream/pid")"
  await 30 gone "$(cat "$place/upstream/pid")"
  rm "$place/upstream/pid"
}

# A check that starts it again runs in a process of its own, and could not tell `stop_all` of it.
stop_upstream_too() {
  [[ ! -e $place/upstream/pid ]] || upstream_stop || true
  stop_all
}
trap stop_upstream_too EXIT

# upstream_fill NAME: a whole index there, by skopeo and without the gateway.
upstream_fill() {
  bounded skopeo copy --quiet --all --dest-cert-dir "${upstream_ca%/*}" --dest-creds robot:robot-password "oci:$images/oci:multi" \
    "docker://$upstream/$1"
}

# upstream_digest NAME: what is there, asked directly.
upstream_digest() {
  bounded skopeo inspect --raw --cert-dir "${upstream_ca%/*}" --creds robot:robot-password "docker://$upstream/$1" | sha256sum | sed 's/ .*//; s/^/sha256:/'
}

# ---- what it was asked -----------------------------------------------------

# mark: `requests` tells what comes after. A request of our own makes sure that what came before is in the log.
mark() {
  local line="mark-$RANDOM$RANDOM"
  ask_upstream "v2/?$line"
  await 10 grep -q "$line" "$place/upstream/requests"
  wc -l <"$place/upstream/requests" >"$place/mark"
}

# METHOD path status, one a line.
requests() {
  tail -n "+$(($(cat "$place/mark") + 1))" "$place/upstream/requests" |
    sed -n 's/.*"\(GET\|HEAD\|PUT\|POST\|PATCH\|DELETE\) \([^ ]*\) HTTP[^"]*" \([0-9]*\) .*/\1 \2 \3/p'
}

# Every blob that was sent was sent once; at least one was.
each_blob_once() {
  requests | sed -n 's/^GET .*\/blobs\/\(sha256:[0-9a-f]*\) 20[06]$/\1/p' | sort >"$place/sent"
  [[ -s $place/sent ]] || fail "the upstream sent no blob"
  [[ -z $(uniq --repeated "$place/sent") ]] || fail "the upstream sent these more than once: $(uniq --repeated "$place/sent" | paste -sd' ')"
}

nothing_asked() {
  local asked
  asked=$(requests)
  [[ -z $asked ]] || fail "the upstream was asked: $asked"
}

# ---- crane's ---------------------------------------------------------------

open_start() {
  # By env, since crane is a function in the scripts, which ends after a while.
  daemon_start open 30 open_answers env PORT="${open#*:}" crane registry serve
  bounded skopeo copy --quiet --all --dest-tls-verify=false "oci:$images/oci:multi" "docker://$open/library/app:1"
}

open_answers() { curl --fail --silent --output /dev/null "http://$open/v2/"; }

# ---- the gateway before them -----------------------------------------------

# upstream_file NAME: the file of an upstream, from standard input.
upstream_file() {
  mkdir -p "$gateway/upstreams"
  cat >"$gateway/upstreams/$1.toml"
}

# mirror_file NAME LINE…: a mirror of the one that asks for a login.
mirror_file() {
  printf robot-password >"$gateway/robot"
  {
    printf 'kind = "mirror"\nurl = "https://%s"\nca = "%s"\nusername = "robot"\npassword_file = "robot"\n' "$upstream" "$upstream_ca"
    printf '%s\n' "${@:2}"
  } | upstream_file "$1"
}

# What such a file says where it stands for Docker Hub.
as_hub=('prefix = "docker.io"' 'namespaces = ["docker.io"]' 'official = "library"')

# Nothing is in the cache any more, and the requests that follow are counted.
cold() {
  "$BINARY" cache purge --all --config "$gateway/gateway.toml"
  mark
}
