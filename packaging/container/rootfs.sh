#!/bin/sh
# Usage: sh packaging/container/rootfs.sh PROGRAM DIRECTORY [NAME]
#
# Makes a root directory with the program and the libraries that it needs, and nothing else.
set -eu

program=$1
root=$2
install -D -m 755 "$program" "$root/usr/bin/${3:-pcapfs}"
# For users and groups by name. The group is the one that may read captures of root.
mkdir -p "$root/etc"
printf 'root:x:0:0::/:/nonexistent\npcapfs:x:999:999::/:/nonexistent\n' >"$root/etc/passwd"
printf 'root:x:0:\npcapfs:x:999:\n' >"$root/etc/group"
# Without systemd and without other name services: files, then the resolver.
printf 'passwd: files\ngroup: files\nhosts: files dns\n' >"$root/etc/nsswitch.conf"
# Mount points; engines mount /proc, /dev and /dev/shm themselves.
mkdir -p "$root/captures" "$root/proc" "$root/dev" "$root/sys"
# The socket is here, whoever the daemon runs as.
install -d -m 1777 "$root/tmp" "$root/run/pcapfs"

# `name => /path (address)`, and `/path (address)` of the loader. What glibc opens later for names
# of users and hosts is beside libc.
ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' |
    while read -r library; do
        install -D -m 755 "$library" "$root$library"
        case $library in
        */libc.so.6)
            for name in "$(dirname "$library")"/libnss_files.so.2 "$(dirname "$library")"/libnss_dns.so.2 \
                "$(dirname "$library")"/libresolv.so.2; do
                [ ! -e "$name" ] || install -D -m 755 "$name" "$root$name"
            done
            ;;
        esac
    done
