#!/bin/busybox sh
# The guest's first process. Makes this machine's files visible over 9p and runs guest.js in them, so that nothing has to be
# copied, and Node, bpftool and the project are those of the machine. What the guest writes stays in its memory.
#
# The environment comes from the kernel's command line: project, the project's folder, and node, Node's path. The report
# goes to the second serial port, the kernel's own messages to the first.
/bin/busybox mkdir -p /sbin /usr/bin /usr/sbin /proc /sys /dev /system /memory /root
/bin/busybox --install -s
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root

mount -t devtmpfs devices /dev
exec </dev/null >/dev/ttyS1 2>&1
mount -t proc processes /proc
mount -t sysfs system /sys
mount -t bpf bpf /sys/fs/bpf

# In the order in which they need each other.
while read -r module; do
	insmod "/modules/$module" || echo "cannot load $module"
done </modules/order

mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=512000,cache=loose system /system
mount -t tmpfs memory /memory
mkdir /memory/changes /memory/work
mount -t overlay -o lowerdir=/system,upperdir=/memory/changes,workdir=/memory/work system /root
for folder in proc sys dev; do
	mount --rbind "/$folder" "/root/$folder"
done
mount -t tmpfs run /root/run
cp /task.json /root/run/task.json

ip link set lo up
# shellcheck disable=SC2154 # from the kernel's command line
chroot /root "$node" "$project/dist/test/kernel/guest.js" /run/task.json || echo "guest.js ended with status $?"
poweroff -f
