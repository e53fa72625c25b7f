#!/usr/bin/env bash
# Makes the images that the tests push, from a static busybox: an OCI layout DIR/oci
# with the tags `single` (this machine's architecture) and `multi` (an index of three),
# and DIR/single.tar, the same image as `docker load` reads it.
set -euo pipefail

out=$1
blobs=$out/oci/blobs/sha256
busybox=$(command -v busybox)
mkdir -p "$blobs"

main() {
  head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$out/marker"
  head -c 8388608 /dev/urandom >"$out/payload"
  printf '{"imageLayoutVersion":"1.0.0"}' >"$out/oci/oci-layout"
  local machine children=() architecture
  machine=$(machine_architecture)
  for architecture in amd64 arm64 s390x; do
    children+=("$(image "$architecture" | jq -c --arg a "$architecture" '. + {platform: {os: "linux", architecture: $a}}')")
  done
  local index single
  index=$(printf '%s\n' "${children[@]}" | jq -cs '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json", manifests: .}' |
    blob application/vnd.oci.image.index.v1+json)
  single=$(printf '%s\n' "${children[@]}" | jq -c --arg a "$machine" 'select(.platform.architecture == $a)')
  jq -cn --argjson single "$single" --argjson multi "$index" '{schemaVersion: 2, manifests: [
    ($single + {annotations: {"org.opencontainers.image.ref.name": "single"}}),
    ($multi + {annotations: {"org.opencontainers.image.ref.name": "multi"}})]}' >"$out/oci/index.json"
  jq -r .digest <<<"$index" >"$out/multi.digest"
  jq -r .digest <<<"$single" >"$out/single.digest"
  skopeo copy --quiet "oci:$out/oci:single" "docker-archive:$out/single.tar:dockgate-test:single"
}

machine_architecture() {
  case $(uname -m) in
    x86_64) printf amd64 ;;
    aarch64) printf arm64 ;;
    s390x) printf s390x ;;
    *) printf 'images.sh: no image for %s\n' "$(uname -m)" >&2; exit 1 ;;
  esac
}

# image ARCHITECTURE: writes its layers, configuration and manifest; prints the manifest's descriptor.
image() {
  local base data config
  base=$(root_layer "$1")
  data=$(data_layer)
  config=$(jq -cn --arg a "$1" --arg base "${base% *}" --arg data "${data% *}" '{architecture: $a, os: "linux",
    config: {Cmd: ["/bin/cat", "/etc/marker"], Env: ["PATH=/bin"]}, rootfs: {type: "layers", diff_ids: [$base, $data]}}' |
    blob application/vnd.oci.image.config.v1+json)
  jq -cn --argjson config "$config" --argjson base "${base#* }" --argjson data "${data#* }" '{schemaVersion: 2,
    mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: [$base, $data]}' |
    blob application/vnd.oci.image.manifest.v1+json
}

root_layer() {
  local root
  root=$(mktemp -d)
  mkdir -p "$root/bin" "$root/etc"
  cp "$busybox" "$root/bin/busybox"
  local applet
  for applet in sh echo cat; do ln -s busybox "$root/bin/$applet"; done
  cp "$out/marker" "$root/etc/marker"
  printf '%s\n' "$1" >"$root/etc/architecture"
  layer "$root"
  rm -rf "$root"
}

# A layer that does not compress and does not fit one read.
data_layer() {
  local root
  root=$(mktemp -d)
  cp "$out/payload" "$root/payload"
  layer "$root"
  rm -rf "$root"
}

# layer DIR: prints "<digest of the tar> <descriptor of the gzip>".
layer() {
  local tar
  tar=$(mktemp)
  tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --file "$tar" --directory "$1" .
  printf 'sha256:%s ' "$(sha256sum <"$tar" | cut -d' ' -f1)"
  gzip --no-name -1 <"$tar" | blob application/vnd.oci.image.layer.v1.tar+gzip
  rm -f "$tar"
}

# blob MEDIA-TYPE: files its standard input under its digest; prints its descriptor.
blob() {
  local file digest
  file=$(mktemp "$blobs/new.XXXXXX")
  cat >"$file"
  digest=$(sha256sum <"$file" | cut -d' ' -f1)
  jq -cn --arg type "$1" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$file")" \
    '{mediaType: $type, digest: $digest, size: $size}'
  chmod 644 "$file"
  mv "$file" "$blobs/$digest"
}

main
