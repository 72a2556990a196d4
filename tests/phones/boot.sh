#!/usr/bin/env bash
# A test phone's first process; phone.py starts it in new mount and process namespaces, which end with it.
# TREE: root folder, left as it is. ADBD: folder of the daemon. KERNEL: what /proc/cpuinfo and /sys shall say.
# SIZE: of /data, as tmpfs understands it. PORT: where adbd listens.
set -euo pipefail
tree=$1 adbd=$2 kernel=$3 size=$4 port=$5

mount --make-rprivate /
mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree"
mount -t tmpfs -o mode=0755 dev "$tree/dev"
for node in full null random urandom zero; do
    touch "$tree/dev/$node"
    mount --bind "/dev/$node" "$tree/dev/$node"
done
mount -t proc proc "$tree/proc"
mount --bind "$kernel/cpuinfo" "$tree/proc/cpuinfo"
mount --bind "$kernel/sys" "$tree/sys"
mount --bind "$adbd" "$tree/system/adbd"
mount -t tmpfs -o "mode=0771,size=$size" data "$tree/data"
mkdir -p "$tree/data/local/tmp"

# Not exec: the first process must reap what loses its parent, and adbd does not.
env --ignore-environment ADBD_PORT="$port" PATH=/system/bin ANDROID_DATA=/data ANDROID_ROOT=/system \
    TMPDIR=/data/local/tmp ${QEMU_CPU:+QEMU_CPU="$QEMU_CPU"} \
    "$(command -v chroot)" "$tree" /system/adbd/loader --library-path /system/adbd /system/adbd/adbd &
wait $!
