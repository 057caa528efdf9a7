#!/bin/bash
# End what docker-up.sh began in DIR: containers, engine, network, mounts. Images stay in DIR; --purge removes it.
#   tools/verify/docker-down.sh DIR [--purge]
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,3s/^# \{0,1\}//p' "$0" >&2; exit 2; }
dir=$(cd "$1" 2>/dev/null && pwd) || exit 0

if [ -e "$dir/dockerd.pid" ]; then
  # shellcheck source=/dev/null
  . "$dir/env.sh"
  if docker version >/dev/null 2>&1; then
    mapfile -t running < <(docker ps -q)
    [ ${#running[@]} = 0 ] || timeout 60 docker kill "${running[@]}" >/dev/null
  fi
  pid=$(cat "$dir/dockerd.pid")
  kill "$pid" 2>/dev/null
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.2
  done
  kill -KILL "$pid" 2>/dev/null
fi

space=ngdocker$(($(printf %s "$dir" | cksum | cut -d' ' -f1) % 250 + 1))
if [ -e "/run/netns/$space" ]; then
  ip link del "$space" 2>/dev/null
  ip netns del "$space"
  iptables-save -t nat | sed -n "/--comment \"\{0,1\}$space\"\{0,1\} /s/^-A/-D/p" | while read -r rule; do
    # shellcheck disable=SC2086 # words of a rule
    iptables -w -t nat ${rule//\"/}
  done
  # Another engine of this kind may still need it.
  ip -o link | grep -q ngdocker || cat "$dir/ip_forward.before" >/proc/sys/net/ipv4/ip_forward
fi
awk -v dir="$dir/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do umount -l "$mount"; done
rm -f "$dir/dockerd.pid" "$dir/docker.sock"
[ "${2:-}" != --purge ] || rm -rf "$dir"
