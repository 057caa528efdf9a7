#!/bin/bash
# Stand-ins under the names of images that this machine cannot pull. Called by docker-up.sh with DIR.
#   debian:bookworm-slim                 by mmdebstrap
#   python:3.12-slim                     that, and a CPython 3.12 of this machine, trimmed as the official image is
#   prom/prometheus, prom/alertmanager   Debian's newest programs
#   grafana/grafana                      NO Grafana: it only looks at what it is given (stand-ins/grafana)
# This machine's configuration of pip and certificates goes into the bases, so that no Dockerfile of the project knows of it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$(cd "$1" && pwd)
cd "$dir"
trap 'rm -rf "$dir/build"' EXIT

there() { docker image inspect "$1" >/dev/null 2>&1; }
said() { echo "docker-images: $*" >&2; }
# NAME:TAG as compose.yaml pins it.
pinned() { sed -n "s|^ *image: \($1:\)\${[A-Z_]*:-\([^}]*\)}.*|\1\2|p" "$here/../../compose.yaml" | head -n 1; }
build() { docker build --quiet --tag "$1" build >/dev/null; }
fresh() { rm -rf build && mkdir build && cp -r "$here/stand-ins/$1" build/; }

if ! there debian:bookworm-slim; then
  said "making debian:bookworm-slim"
  fresh debian.clean
  mmdebstrap -q --variant=minbase --aptopt='APT::Install-Recommends "false"' \
    --include=ca-certificates,netbase,tzdata,usr-is-merged,wget --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --customize-hook="$dir/build/debian.clean" bookworm build/base.tar
  docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["bash"]' build/base.tar debian:bookworm-slim >/dev/null
fi

if ! there python:3.12-slim; then
  said "making python:3.12-slim"
  tree=${PYTHON_3_12:-$(pyenv prefix 3.12.1 2>/dev/null || python3.12 -c 'import sys; print(sys.base_prefix)')}
  fresh python.Dockerfile
  mv build/python.Dockerfile build/Dockerfile
  mkdir build/python
  tar -C "$tree" --exclude='*/test' --exclude='*/tests' --exclude='*/idle_test' --exclude=__pycache__ --exclude='*.pyc' \
    --exclude='*.a' --exclude='lib/python3.12/site-packages/*' -cf - bin/python3.12 lib include | tar -C build/python -xf -
  find build/python -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null ||
    said "binutils are not installed: this image is bigger than the official one"
  cp /etc/ssl/certs/ca-certificates.crt build/ca.crt
  {
    echo '[global]'
    echo 'cert = /etc/ssl/certs/ca-certificates.crt'
    echo 'timeout = 180'
    # Of places, those that a container reaches, too.
    python3 -m pip config list | sed -n "s|^[a-z:]*\.\(index-url\)='\(http.*\)'$|\1 = \2|p"
  } >build/pip.conf
  build python:3.12-slim
fi

for each in prometheus alertmanager; do
  image=$(pinned "prom/$each")
  there "$image" && continue
  program=monitoring/usr/bin/prometheus
  [ $each = prometheus ] || program=monitoring/usr/bin/prometheus-alertmanager
  said "making $image of $("$program" --version 2>&1 | sed -n 's/^.*, version \([^ ]*\).*/\1/p')"
  fresh $each.Dockerfile
  mv build/$each.Dockerfile build/Dockerfile
  cp "$program" build/$each
  cp -r monitoring/usr/share/prometheus build/share
  build "$image"
done

image=$(pinned grafana/grafana)
if ! there "$image"; then
  said "making $image, which is no Grafana"
  fresh grafana
  mv build/grafana/* build/
  build "$image"
fi
