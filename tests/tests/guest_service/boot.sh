#!/bin/bash
# Boots systemd in namespaces of this guest, with the programs of the machine, with /etc and /var of its own in memory,
# and with one unit, which runs $VISIT and powers off. /root/host is the directory $HOST, which keeps what is written.
set -eu

root=$LAB_SCRATCH/root
mkdir "$root"
mount -t tmpfs tmpfs "$root"
cd "$root"
mkdir -p usr etc/systemd/system var/log run tmp proc sys dev root/host old
for directory in bin sbin lib lib64; do ln -s usr/$directory $directory; done
mount --bind /usr usr
mount -t tmpfs tmpfs usr/local/bin
mount --bind /dev dev
mount -t devpts devpts dev/pts
ln -sf pts/ptmx dev/ptmx
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount --bind "$HOST" root/host
cp /etc/passwd /etc/group /etc/nsswitch.conf etc/
touch etc/machine-id

cat > etc/systemd/system/visit.target <<UNIT
[Unit]
Requires=basic.target
Wants=visit.service
UNIT
cat > etc/systemd/system/visit.service <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
WorkingDirectory=/root/host
StandardOutput=append:/root/host/stdout
StandardError=append:/root/host/stderr
ExecStart=/bin/bash -eux /root/host/visit.sh
ExecStopPost=/bin/systemctl poweroff --force --no-block
UNIT

ip link add eth0 type dummy
ip addr add 192.168.220.137/24 dev eth0
ip link set eth0 up

# When systemd powers off, the kernel ends the first process of the PID namespace by a signal.
start='mount -t proc proc proc; pivot_root . old; exec chroot . /bin/sh -c "umount -l /old; exec /lib/systemd/systemd --unit=visit.target --log-target=kmsg"'
container=lab unshare --pid --fork --mount sh -e -c "$start" || test $? -gt 128
