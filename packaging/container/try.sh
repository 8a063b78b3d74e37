#!/bin/sh
# Usage: sh packaging/container/try.sh PROGRAM
#
# Builds the image around a pcapfs that is built already, and tries what docs/containers.md says.
# As root; needs buildah, umoci, runc, jq, busybox and python3. It needs no engine, no registry and no network.
set -eu

fail() {
    echo "container-test: $*" >&2
    exit 1
}
say() { echo "container-test: $*"; }

if [ $# -ne 1 ] || [ ! -x "$1" ]; then
    fail "usage: sh packaging/container/try.sh PROGRAM"
fi
[ "$(id -u)" -eq 0 ] || fail "needs root, as container engines do"
for tool in buildah umoci runc jq busybox python3; do
    command -v $tool >/dev/null || fail "needs $tool (apt-get install buildah umoci runc jq busybox python3)"
done
[ -e /dev/fuse ] || fail "needs /dev/fuse"
program=$(realpath -- "$1")
here=$(dirname -- "$(realpath -- "$0")")

# A mount namespace of its own is the host of this test: what is mounted goes with it.
if [ "${TRY_CONTAINER-}" != inside ]; then
    TRY_CONTAINER=inside exec unshare --mount --propagation private sh "$0" "$program"
fi

work=$(mktemp -d)
chmod 755 "$work"
state=$work/state
containers=
# Ends what is left, in every case.
end() {
    for name in $containers; do
        runc --root "$state" delete --force "$name" >/dev/null 2>&1 || true
    done
    umount -l "$work/host/captures" 2>/dev/null || true
    umount -l "$work/host" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

say "building the image"
# The first stage of the Containerfile compiles; here a directory takes its place.
sh "$here/rootfs.sh" "$program" "$work/build/rootfs"
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=vfs
storage="--root $work/storage --runroot $work/runroot"
# shellcheck disable=SC2086 # two options
buildah $storage bud --quiet --build-context build="$work/build" -t pcapfs -f "$here/Containerfile" "$work/build" >/dev/null
# shellcheck disable=SC2086
buildah $storage push --quiet pcapfs "oci:$work/oci:pcapfs"
umoci unpack --image "$work/oci:pcapfs" "$work/bundle" >/dev/null 2>&1
image=$work/bundle/rootfs
if [ -e "$image/bin/sh" ] || [ -e "$image/usr/bin/sh" ]; then fail "the image has a shell"; fi
say "the image has $(du -sm "$image" | cut -f1) MiB"
# Another image, for programs that read.
sh "$here/rootfs.sh" "$(command -v busybox)" "$work/reader" busybox

# bundle NAME ROOT FILTER COMMAND...: a container with no right at all, changed by a filter of jq.
bundle() {
    name=$1 root=$2 filter=$3
    shift 3
    mkdir -p "$work/$name.bundle"
    (cd "$work/$name.bundle" && runc spec)
    arguments=$(printf '%s\n' "$@" | jq -R . | jq -s .)
    jq --arg root "$root" --argjson arguments "$arguments" "
        .process.args = \$arguments | .process.terminal = false
        | .process.env = [\"PATH=/usr/bin\", \"PCAPFS_SOCKET=/run/pcapfs/control.sock\"]
        | .root = {path: \$root, readonly: true}
        | .process.capabilities = {}
        | .mounts += [{destination: \"/run/pcapfs\", type: \"tmpfs\", source: \"tmpfs\", options: [\"mode=1777\"]}]
        | def capable(\$all): .process.capabilities = {bounding: \$all, effective: \$all, permitted: \$all};
        def bind(\$from; \$to; \$options): .mounts += [{destination: \$to, type: \"bind\", source: \$from, options: \$options}];
        def without(\$kind): .linux.namespaces |= map(select(.type != \$kind));
        def fuse: .linux.devices += [{path: \"/dev/fuse\", type: \"c\", major: 10, minor: 229, fileMode: 438}]
            | .linux.resources.devices += [{allow: true, type: \"c\", major: 10, minor: 229, access: \"rw\"}];
        $filter" "$work/$name.bundle/config.json" >"$work/$name.json"
    mv "$work/$name.json" "$work/$name.bundle/config.json"
}
# start NAME: in the background; its messages are in NAME.log.
start() {
    containers="$containers $1"
    runc --root "$state" run --detach --bundle "$work/$1.bundle" "$1" >"$work/$1.log" 2>&1 </dev/null ||
        fail "$1 does not start: $(cat "$work/$1.log")"
}
# run NAME: to its end.
run() {
    containers="$containers $1"
    runc --root "$state" run --bundle "$work/$1.bundle" "$1" </dev/null
}
inside() { runc --root "$state" exec "$@"; }
pid_of() { runc --root "$state" state "$1" | jq .pid; }
ready() {
    for _ in $(seq 100); do
        grep -q 'pcapfs: ready at' "$work/$1.log" && return
        sleep 0.1
    done
    fail "$1 is not ready: $(cat "$work/$1.log")"
}
stop() {
    runc --root "$state" kill "$1" "${2:-TERM}"
    for _ in $(seq 100); do
        [ "$(runc --root "$state" state "$1" | jq -r .status)" = stopped ] && break
        sleep 0.1
    done
    runc --root "$state" delete --force "$1"
}
# send PID COUNT: datagrams to port 9 of the loopback of a container.
send() {
    nsenter --net="/proc/$1/ns/net" python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for i in range(int(sys.argv[1])):
    try: s.sendto(b"x" * 100, ("127.0.0.1", 9))
    except ConnectionRefusedError: pass' "$2"
}
# stored NAME ALIAS COUNT: waits until that many packets are stored.
stored() {
    for _ in $(seq 100); do
        found=$(inside "$1" /usr/bin/pcapfs status "$2" --json | jq .packets.stored)
        [ "$found" -ge "$3" ] && return
        sleep 0.1
    done
    fail "$1 has stored $found of $3 packets in $2"
}
up() { nsenter --net="/proc/$(pid_of "$1")/ns/net" ip link set lo up; }

say "it runs without a shell"
bundle version "$image" . /usr/bin/pcapfs --version
run version

say "without any right: a savefile, read over the control socket"
python3 - "$work/trace.pcap" <<'END'
import struct, sys
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<IHHIIII", 0xa1b23c4d, 2, 4, 0, 0, 262144, 1))
    for number in range(100):
        file.write(struct.pack("<IIII", number, 0, 60, 60) + bytes(60))
END
chmod 644 "$work/trace.pcap"
bundle savefile "$image" '.process.user = {uid: 1000, gid: 1000}
    | bind("'"$work/trace.pcap"'"; "/trace.pcap"; ["bind", "ro"])' \
    /usr/bin/pcapfs mount none -r /trace.pcap --socket /run/pcapfs/control.sock
start savefile
ready savefile
inside --user 1000:1000 savefile /usr/bin/pcapfs replay trace >"$work/replayed.pcap"
cmp "$work/trace.pcap" "$work/replayed.pcap" || fail "the savefile was replayed differently"
! inside --user 1001:1001 savefile /usr/bin/pcapfs list trace 2>"$work/said" || fail "another user may read it"
grep -q 'permission denied' "$work/said" || fail "another user is told: $(cat "$work/said")"
stop savefile

say "with NET_RAW alone: an interface, in 64 MiB of shared memory"
bundle socket "$image" 'capable(["CAP_NET_RAW"])' /usr/bin/pcapfs mount none -c 'lo=lo udp port 9'
start socket
ready socket
up socket
send "$(pid_of socket)" 50
stored socket lo 50
grep 'a ring of .* instead of 64 MiB' "$work/socket.log" || fail "nothing is said of a smaller ring"
inside socket /usr/bin/pcapfs status lo --json |
    jq -e '.ring | .wanted_bytes == 67108864 and .size_bytes < 67108864 and .size_bytes >= 16777216' >/dev/null ||
    fail "the status does not tell of the smaller ring"
stop socket

say "without the rights for a tree: the message names them"
bundle refused "$image" 'capable(["CAP_NET_RAW"])' /usr/bin/pcapfs mount /captures -c lo=lo
! run refused >"$work/refused.log" 2>&1 || fail "it mounts without a device"
grep 'device /dev/fuse\|SYS_ADMIN' "$work/refused.log" || fail "it says: $(cat "$work/refused.log")"

say "with SYS_ADMIN and /dev/fuse: a tree that the host and a reader see"
mkdir -p "$work/host"
mount -t tmpfs tmpfs "$work/host"
mount --make-shared "$work/host"
mkdir "$work/host/captures"
tree='capable(["CAP_NET_RAW", "CAP_SYS_ADMIN"]) | fuse
    | bind("'"$work/host"'"; "/tmp"; ["rbind", "rshared"]) | .linux.rootfsPropagation = "shared"'
bundle tree "$image" "$tree" /usr/bin/pcapfs mount /tmp/captures -c 'web=lo udp port 9' --mode 0755
start tree
ready tree
up tree
send "$(pid_of tree)" 50
stored tree web 50
[ "$(jq .packets.stored "$work/host/captures/web/status.json")" -ge 50 ] || fail "the host sees another tree"
bundle reader "$work/reader" 'bind("'"$work/host/captures"'"; "/captures"; ["bind", "ro"])' \
    /usr/bin/busybox cat /captures/web/status.json
run reader | jq -e '.packets.stored >= 50' >/dev/null || fail "the reader sees no tree"
bundle writer "$work/reader" 'bind("'"$work/host/captures"'"; "/captures"; ["bind", "ro"])' \
    /usr/bin/busybox sh -c 'echo stop > /captures/web/ctl'
! run writer >"$work/writer.log" 2>&1 || fail "the reader may write"
jq -e '.state == "running"' "$work/host/captures/web/status.json" >/dev/null || fail "the reader has stopped it"

say "after kill -9: a dead mount, which the next start clears"
stop tree KILL
! ls "$work/host/captures" 2>"$work/said" || fail "there is no dead mount"
bundle again "$image" "$tree" /usr/bin/pcapfs mount /tmp/captures -c 'web=lo udp port 9' --mode 0755
start again
ready again
grep -q running "$work/host/captures/web/status.json" || fail "the host does not see the next tree"
stop again
[ -z "$(ls "$work/host/captures")" ] || fail "the tree stays on the host"

say "the network namespace of another container"
bundle pod "$work/reader" . /usr/bin/busybox sleep 60
start pod
up pod
bundle many "$image" 'capable(["CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE"]) | without("pid")
    | bind("/proc"; "/proc"; ["rbind"])' \
    /usr/bin/pcapfs mount none -c "pod=netns:$(pid_of pod)/lo udp port 9"
start many
ready many
send "$(pid_of pod)" 50
stored many pod 50
stop many
stop pod KILL

if python3 -c 'import yaml' 2>/dev/null; then
    python3 -c 'import sys, yaml
services = yaml.safe_load(open(sys.argv[1]))["services"]
assert {"sender", "receiver", "daemon", "reader"} == set(services), services' "$here/compose.yaml" || fail "compose.yaml"
fi
say "ok"
