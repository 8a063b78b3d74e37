#!/bin/sh
# Prints the folder in which Wireshark looks for programs that capture, for all users. Without
# Wireshark it is the one of Debian's package, which may be installed later; nothing elsewhere.
set -eu

folder=$(tshark -G folders 2>/dev/null | sed -n 's/^\(Global \)\{0,1\}Extcap path:[[:space:]]*//p' | head -n 1)
if [ -z "$folder" ]; then
    triplet=$(gcc -print-multiarch 2>/dev/null || true)
    [ -z "$triplet" ] || folder=/usr/lib/$triplet/wireshark/extcap
fi
echo "$folder"
