#!/bin/sh
# Usage: sh packaging/try-deb.sh PACKAGE.deb
#
# Installs the package on a Debian 12 that has nothing but what it needs, tries it, and removes it.
# As root; needs debootstrap and, the first time, the package mirror of this machine.
# $SUITE and $MIRROR choose another Debian; $CACHE, where the packages of the root are kept.
set -eu

fail() {
    echo "try-deb: $*" >&2
    exit 1
}
say() { echo "try-deb: $*"; }

if [ $# -ne 1 ] || [ ! -f "$1" ]; then
    fail "usage: sh packaging/try-deb.sh PACKAGE.deb"
fi
[ "$(id -u)" -eq 0 ] || fail "needs root, for a root directory of its own"
command -v debootstrap >/dev/null || fail "needs debootstrap (apt-get install debootstrap)"
package=$(realpath -- "$1")

# In a mount namespace of its own: what is mounted below the root goes with it, whatever happens.
if [ "${TRY_DEB-}" != inside ]; then
    TRY_DEB=inside exec unshare --mount --propagation private sh "$0" "$package"
fi

suite=${SUITE:-bookworm}
mirror=${MIRROR:-$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)}
mirror=${mirror:-http://deb.debian.org/debian}
cache=${CACHE:-/var/cache/try-deb}
root=$(mktemp -d)
# A root directory is for everybody.
chmod 755 "$root"
trap 'umount -R "$root/proc" "$root/dev" 2>/dev/null || true; rm -rf --one-file-system "$root"' EXIT
trap 'exit 130' INT TERM

say "a $suite root from $mirror"
mkdir -p "$cache"
debootstrap --variant=minbase --include=man-db,procps,systemd --cache-dir="$cache" "$suite" "$root" "$mirror" \
    >"$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; fail "debootstrap failed"; }
rm -f "$root.log"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
chmod 1777 "$root/dev/shm"
mount -t devpts -o ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for node in 'null c 1 3' 'zero c 1 5' 'urandom c 1 9' 'fuse c 10 229'; do
    # shellcheck disable=SC2086 # four words
    mknod -m 666 "$root"/dev/$node
done
# What apt needs to reach the mirror, if the machine says how.
cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
for file in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf; do
    [ ! -f "$file" ] || cp "$file" "$root/etc/apt/apt.conf.d/"
done
# No service is started while packages are installed.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"; }
# Every file but those that package managers and caches write.
files() {
    (cd "$root" && find . -xdev \( -path ./var/cache -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
        -o -path ./var/log -o -path ./tmp -o -path ./run -o -path ./var/lib/systemd -o -path './etc/*-' \) -prune -o -print | sort)
}

cp "$package" "$root/tmp/pcapfs.deb"
# Dependencies first, so that what the package itself leaves behind can be told from them.
inside dpkg-deb -f /tmp/pcapfs.deb Depends | tr ',' '\n' | sed 's/(.*//; s/|.*//; s/ //g' >"$root/tmp/depends"
inside apt-get -qq update
# shellcheck disable=SC2046 # one word for each package
inside apt-get -qq -y install --no-install-recommends $(cat "$root/tmp/depends") >/dev/null 2>&1
files >"$root/tmp/before"

say "installing"
inside apt-get -qq -y install --no-install-recommends /tmp/pcapfs.deb >/dev/null
inside pcapfs --version
inside mount.pcapfs --version
inside getent passwd pcapfs
inside getent group pcapfs
for page in pcapfs.1 pcapfs.toml.5 pcapfs.7 mount.pcapfs.8; do
    inside man -w "${page##*.}" "${page%.*}" >/dev/null || fail "$page: no such man page"
done
for file in bash-completion/completions/pcapfs zsh/vendor-completions/_pcapfs fish/vendor_completions.d/pcapfs.fish; do
    grep -q check-config "$root/usr/share/$file" || fail "$file completes nothing"
done
[ "$(readlink "$root/usr/sbin/mount.fuse.pcapfs")" = mount.pcapfs ] || fail "mount.fuse.pcapfs leads elsewhere"
[ "$(readlink "$root"/usr/lib/*/wireshark/extcap/pcapfs)" = ../../../../bin/pcapfs ] || fail "Wireshark finds no pcapfs"
inside test ! -u /usr/sbin/mount.pcapfs || fail "mount.pcapfs is setuid"
say "systemd-analyze verify"
inside systemd-analyze verify --man=no pcapfs.service pcapfs-web.service pcapfs-publish@web.service \
    pcapfs-watch@web.service
inside systemd-sysusers --cat-config pcapfs.conf >/dev/null
inside systemd-tmpfiles --create pcapfs.conf

say "mounting"
printf '\324\303\262\241\2\0\4\0\0\0\0\0\0\0\0\0\0\0\4\0\1\0\0\0' >"$root/tmp/empty.pcap"
mkdir "$root/captures"
inside mount -t pcapfs file:/tmp/empty.pcap /captures
inside findmnt -no FSTYPE,SOURCE /captures
inside cat /captures/README | head -n 1
inside ls -ld /captures/empty | grep -q 'drwxr-x--- .* pcapfs pcapfs ' || fail "the capture is not pcapfs's"
inside umount /captures
rmdir "$root/captures"

say "removing"
inside apt-get -qq -y purge pcapfs >/dev/null
files >"$root/tmp/after"
diff "$root/tmp/before" "$root/tmp/after" || fail "the package left something behind, or took something away"
[ ! -e "$root/run/pcapfs" ] || fail "/run/pcapfs is still there"
! inside getent passwd pcapfs || fail "the user is still there"
! inside getent group pcapfs || fail "the group is still there"
say "ok"
