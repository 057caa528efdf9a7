#!/usr/bin/env bash
# One real Kubernetes node in a network namespace of its own: etcd, control plane, containerd, kubelet, kube-proxy.
# usage: k8s-up.sh BIN RUN           as root; BIN is what k8s-build.sh printed; about 25 s
# Leaves in RUN: kc (kubeconfig), NAME.log and NAME.pid of each process, ctd/containerd.sock. k8s-down.sh RUN ends it all.
# Inside `nsenter --net=/run/netns/$NS` (NS=neurogate-k8s) are the API, https://10.99.0.1:16443, NodePorts and pods.
set -euo pipefail

bin=${1:?directory of the binaries}
run=${2:?directory to run in}
namespace=${NS:-neurogate-k8s}
address=10.99.0.1
mkdir -p "$run"
run=$(cd "$run" && pwd)
cd "$run"
echo "$namespace" > namespace

packages=(etcd-server containerd runc containernetworking-plugins iptables iproute2 socat conntrack openssl curl)
missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} != 0 ]; then
  apt-get -qq update
  # Their services are not started: RUNLEVEL 1 is no level that they run in.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

ip netns add "$namespace"
ip -n "$namespace" link set lo up
ip -n "$namespace" link add node0 type veth peer name node1
ip -n "$namespace" addr add $address/24 dev node0
ip -n "$namespace" link set node0 up
ip -n "$namespace" link set node1 up
ip -n "$namespace" route add default via 10.99.0.254 dev node0 # there must be one; nothing answers there

openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
token=$(openssl rand -hex 16)
(umask 077 && echo "$token,admin,admin,\"system:masters\"" > tokens.csv)
(umask 077 && cat > kc) <<END
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: "https://$address:16443", insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: local, context: {cluster: local, user: admin}}]
current-context: local
END

# Not `ip netns exec`: that hides /sys/fs/cgroup, and kubelet ends.
inside=(nsenter "--net=/run/netns/$namespace")
start() {
  local name=$1
  shift
  setsid "${inside[@]}" "$@" > "$name.log" 2>&1 &
  echo $! > "$name.pid"
}
# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "k8s-up: $what did not come up; see $run/*.log" >&2; exit 1; }
    sleep 0.25
  done
}
kubectl=("${inside[@]}" "${KUBECTL:-kubectl}" --kubeconfig "$run/kc")

start etcd etcd --data-dir "$run/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
  --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
  --initial-cluster default=http://127.0.0.1:2380 --log-level warn --unsafe-no-fsync
wait_for 90 etcd "${inside[@]}" curl -sf http://127.0.0.1:2379/health

start api "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --advertise-address=$address \
  --secure-port=16443 "--cert-dir=$run/certs" --service-cluster-ip-range=10.96.0.0/16 --token-auth-file=tokens.csv \
  --authorization-mode=RBAC --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
  --service-account-issuer=https://kubernetes.default.svc --api-audiences=https://kubernetes.default.svc \
  --allow-privileged=true --kubelet-preferred-address-types=InternalIP
wait_for 180 kube-apiserver "${kubectl[@]}" get --raw /readyz

start kcm "$bin/kube-controller-manager" "--kubeconfig=$run/kc" --bind-address=127.0.0.1 --leader-elect=false \
  --service-account-private-key-file=sa.key --root-ca-file=certs/apiserver.crt
start sched "$bin/kube-scheduler" "--kubeconfig=$run/kc" --bind-address=127.0.0.1 --leader-elect=false

"${inside[@]}" sysctl -qw net.ipv4.ip_forward=1
mkdir -p cni ctd
cat > cni/10-bridge.conflist <<'END'
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "@RUN@/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
sed -i "s#@RUN@#$run#" cni/10-bridge.conflist
cat > ctd.toml <<END
version = 2
root = "$run/ctd/root"
state = "$run/ctd/state"
[grpc]
  address = "$run/ctd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:3.2"
  restrict_oom_score_adj = true   # for machines without CAP_SYS_RESOURCE: every sandbox would fail
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$run/cni"
END
start ctd containerd --config "$run/ctd.toml"
wait_for 90 containerd ctr -a "$run/ctd/containerd.sock" version

start proxy "$bin/kube-proxy" "--kubeconfig=$run/kc" --proxy-mode=iptables --cluster-cidr=10.244.0.0/16 \
  --hostname-override=node1 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
start kubelet "$bin/kubelet" "--kubeconfig=$run/kc" --hostname-override=node1 --node-ip=$address --container-runtime=remote \
  "--container-runtime-endpoint=unix://$run/ctd/containerd.sock" --cgroup-driver=cgroupfs --fail-swap-on=false \
  "--root-dir=$run/kubelet" --authorization-mode=AlwaysAllow --anonymous-auth=true --pod-cidr=10.244.0.0/24 \
  --eviction-hard= --image-gc-high-threshold=100 --resolv-conf= --runtime-cgroups=/ --kubelet-cgroups=/
ready() { "${kubectl[@]}" get node node1 | grep -q ' Ready'; }
wait_for 240 "the node" ready
"${kubectl[@]}" get nodes >&2
