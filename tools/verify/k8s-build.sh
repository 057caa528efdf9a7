#!/usr/bin/env bash
# Builds Kubernetes 1.20.2 (apiserver, controller-manager, scheduler, proxy, kubelet) and a pause container's binary from the
# source package of Debian 12, which carries everything it needs, and prints the directory they are in.
# usage: [JOBS=2] k8s-build.sh       as root; about 4 minutes on two cores, 1.5 GB meanwhile, 250 MB in the end; once
set -euo pipefail

say() { printf 'k8s-build: %s\n' "$*" >&2; }

base=${XDG_CACHE_HOME:-$HOME/.cache}/neurogate/k8s-1.20
bin=$base/bin
programs=(kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet)
complete() {
  local program
  for program in "${programs[@]}" pause; do [ -x "$bin/$program" ] || return 1; done
}
if complete; then
  echo "$bin"
  exit 0
fi
[ "$(id -u)" = 0 ] || { say "must be root, to install Go"; exit 1; }
grep -qx VERSION_CODENAME=bookworm /etc/os-release || { say "takes Debian 12 (bookworm), whose Go fits this version"; exit 1; }

work=$base/work
apt=$work/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$bin"
cd "$work"
packages=(golang-go gcc libc6-dev golang-github-modern-go-reflect2-dev)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
  apt-get -qq update
  # Their services are not started: RUNLEVEL 1 is no level that they run in.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
source=$(awk '/^URIs/ {print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $source bookworm main" > "$apt/src.list"
options=(-o "Dir::Etc::SourceList=$apt/src.list" -o Dir::Etc::SourceParts=/dev/null -o "Dir::State::lists=$apt/lists"
  -o "Dir::Cache=$apt/cache" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root)
if ! compgen -G 'kubernetes_*.orig.tar.gz' >/dev/null; then
  say "fetching the source"
  apt-get "${options[@]}" -qq update
  apt-get "${options[@]}" -qq source --download-only kubernetes >/dev/null
fi
rm -rf src gopath
mkdir -p src gopath/src/k8s.io
tar -C src --strip-components=1 -xf kubernetes_*.orig.tar.gz
ln -sfn "$work/src" gopath/src/k8s.io/kubernetes

# The reflect2 1.0.1 in it crashes the server on the first custom resource with Go 1.18 and newer; Debian's is 1.0.2.
rm -rf src/vendor/github.com/modern-go/reflect2
cp -r /usr/share/gocode/src/github.com/modern-go/reflect2 src/vendor/github.com/modern-go/reflect2

jobs=${JOBS:-2}
export GOGC=400 GOPATH="$work/gopath" GO111MODULE=off GOFLAGS="" GOCACHE="$work/gocache" GOMAXPROCS="$jobs"
cd gopath/src/k8s.io/kubernetes
say "generating its OpenAPI definitions"
go build -p "$jobs" -o "$work/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$(grep -rlE --include='*.go' '^// \+k8s:openapi-gen=true' staging/src pkg cmd | grep -vE '_examples|sample-' |
  xargs -n1 dirname | sort -u |
  sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^pkg#k8s.io/kubernetes/pkg#' -e 's#^cmd#k8s.io/kubernetes/cmd#' |
  paste -sd,)
"$work/openapi-gen" -i "$inputs" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
  --go-header-file hack/boilerplate/boilerplate.generatego.txt -r "$work/violations.txt"

version=k8s.io/kubernetes/vendor/k8s.io/component-base/version
flags="-s -w -X $version.gitVersion=v1.20.2 -X $version.gitMajor=1 -X $version.gitMinor=20 -X $version.gitTreeState=clean"
for program in "${programs[@]}"; do
  say "building $program"
  go build -tags providerless,dockerless -p "$jobs" -ldflags "$flags" -o "$bin/$program" "./cmd/$program"
done
gcc -Os -static -DVERSION=3.2 -o "$bin/pause" build/pause/linux/pause.c
strip "$bin/pause"
chmod -R u+w "$work"
rm -rf "$work"
echo "$bin"
