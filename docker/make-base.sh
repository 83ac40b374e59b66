#!/usr/bin/env bash
# Makes the base image walproxy-base:bookworm from Debian's packages alone, where no image registry can be
# reached: a minimal Debian with Python and a stock PostgreSQL 15. Does nothing if the image is there.
set -euo pipefail
image=${1:-walproxy-base:bookworm}
suite=bookworm

if docker image inspect "$image" >/dev/null 2>&1; then
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root: sudo $0" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 1; }

mirror=${WALPROXY_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep '/debian/*$' | head -1)}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$mirror"
# Packages of services would start them, and a server's would make a cluster.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
mkdir -p "$root/etc/postgresql-common"
echo 'create_main_cluster = false' > "$root/etc/postgresql-common/createcluster.conf"
DEBIAN_FRONTEND=noninteractive chroot "$root" \
  apt-get -q install -y --no-install-recommends python3 postgresql-15
chroot "$root" apt-get clean
rm -rf "$root"/var/lib/apt/lists/*
tar -C "$root" --numeric-owner -c . | docker import --change 'ENV LC_ALL=C.UTF-8' - "$image" >/dev/null
echo "made $image"
