#!/usr/bin/env bash
# Ends what k8s-up.sh started, and leaves nothing behind. usage: k8s-down.sh RUN
set -uo pipefail

run=$(cd "${1:?directory it runs in}" && pwd) || exit 1
cd "$run" || exit 1
namespace=$(cat namespace 2>/dev/null || echo neurogate-k8s)
inside=(nsenter "--net=/run/netns/$namespace")

# Pods first, or their shims stay.
timeout 90 "${inside[@]}" "${KUBECTL:-kubectl}" --kubeconfig kc delete deployments,statefulsets,daemonsets,jobs,pods \
  --all-namespaces --all --grace-period=1 --wait=false >/dev/null 2>&1
containers() { ctr -a ctd/containerd.sock -n k8s.io tasks list -q 2>/dev/null; }
for _ in $(seq 100); do
  [ -n "$(containers)" ] || break
  sleep 0.3
done
for name in kubelet proxy sched kcm api; do
  [ -e $name.pid ] && kill "$(cat $name.pid)" 2>/dev/null
done
for task in $(containers); do # what kubelet had no time for
  ctr -a ctd/containerd.sock -n k8s.io tasks delete --force "$task" >/dev/null 2>&1
done
for name in etcd ctd; do
  [ -e $name.pid ] && kill "$(cat $name.pid)" 2>/dev/null
done
for name in kubelet proxy sched kcm api etcd ctd; do
  [ -e $name.pid ] || continue
  for _ in $(seq 50); do
    kill -0 "$(cat $name.pid)" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$(cat $name.pid)" 2>/dev/null
  rm -f $name.pid
done
awk -v run="$run/" 'index($2, run) == 1 {print $2}' /proc/mounts | sort -r | xargs -r -n1 umount 2>/dev/null
# Its bridge, veths and iptables rules live in the namespace, and go with it.
ip netns del "$namespace" 2>/dev/null
# Namespaces of pods that are gone.
rmdir /sys/fs/cgroup/*/kubepods/*/* /sys/fs/cgroup/*/kubepods/* /sys/fs/cgroup/*/kubepods 2>/dev/null
exit 0
