#!/usr/bin/env bash
# Boots this machine's systemd in namespaces of its own, over a throw-away copy of the file system, and runs one program:
#
#     unshare --mount --pid --fork --cgroup --uts --ipc --net bash box.sh CHECKOUT PYTHON OUT PROGRAM
#
# The program is run as root by the Python under the prefix PYTHON, which is seen at /opt/python, sees CHECKOUT at /opt/src,
# and writes to /out, which is OUT: none of them is hidden from a service without access to home directories. Needs root,
# overlayfs and cgroup2. Nothing that happens inside is left on the machine, but for OUT.
set -euo pipefail
checkout=$1 python=$2 out=$3 program=$4
box=$(mktemp -d)
mount --make-rprivate /
mount -t tmpfs -o size=1g,mode=755 tmpfs "$box"
mkdir "$box"/{root,upper,work}
show() { # a folder at another place, where everybody may enter it
	mkdir -p "$box/$3"/{upper,work} "$root$2"
	mount -t overlay overlay -o "lowerdir=$1,upperdir=$box/$3/upper,workdir=$box/$3/work" "$root$2"
	chmod 755 "$root$2"
}
root=$box/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$box/upper,workdir=$box/work" "$root"
mkdir -p "$root/out"
show "$checkout" /opt/src src
show "$python" /opt/python python
mount --bind "$out" "$root/out"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do
	touch "$root/dev/$node"
	mount --bind "/dev/$node" "$root/dev/$node"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up 2>/dev/null || true
cat >"$root/etc/systemd/system/box.service" <<UNIT
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/opt/python/bin/python3 -P $program
ExecStopPost=/bin/systemctl exit 0
StandardOutput=append:/out/said
StandardError=append:/out/said
UNIT
# Not chroot: user namespaces (PrivateUsers=) cannot be made in one.
cd "$root"
mkdir -p .machine
pivot_root . .machine
umount -l /.machine
mount --make-rshared / # credentials are mounted in one namespace and seen in another
exec /usr/bin/env -i container=unshare PATH=/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --unit=box.service
