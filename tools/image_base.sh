#!/usr/bin/env bash
# tools/image_base.sh: what `make test-image` needs, and the path of a base image with Debian's Python on standard output.
# On Debian, as root, it installs buildah, podman, runc and debootstrap. The base is made once and kept in the cache.
set -euo pipefail

say() { printf '\n==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

missing=()
for program in buildah podman runc debootstrap redis-server; do
    PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null || missing+=("$program")
done
[ "$(id -u)" = 0 ] || die "images are built and run by root here: sudo make test-image"
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || die "missing: ${missing[*]}"
    say "installing ${missing[*]}"
    apt-get update >&2
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}" >&2
fi

base="${XDG_CACHE_HOME:-$HOME/.cache}/dumbwaiter/debian-12-python.tar"
if [ ! -s "$base" ]; then
    say "making a base image with debootstrap (a minute)"
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$folder/root" >&2
    rm -rf "$folder"/root/var/cache/apt/archives/*.deb
    mkdir -p "$(dirname "$base")"
    tar -C "$folder/root" -cf "$base.new" .
    mv "$base.new" "$base"
fi
echo "$base"
