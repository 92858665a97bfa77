#!/bin/bash
# The first process of a guest: User Mode Linux over this machine's own root filesystem, with a throw-away overlay.
# Started by kernel.py; UML_RUN is the run's folder on the host, the only one that is written to. It runs `command`
# there, with standard output and error in files beside it, and leaves the exit status in `status`.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

overlay() {
    mount -n -t proc proc /proc
    local modules
    modules=/usr/lib/uml/modules/$(uname -r)
    insmod "$modules/kernel/fs/overlayfs/overlay.ko"
    mount -n -t tmpfs -o size=90% tmpfs /mnt
    mkdir /mnt/up /mnt/work /mnt/guest
    mount -n -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work overlay /mnt/guest || exit 1
    mkdir -p /mnt/guest/lib/modules
    ln -sfn "$modules" "/mnt/guest/lib/modules/$(uname -r)"
    mount -n --move /dev /mnt/guest/dev
    mount -n --move /proc /mnt/guest/proc
    exec chroot /mnt/guest /bin/bash "$UML_INIT" ready
}

ready() {
    mount -n -t sysfs sys /sys
    mount -n -t tmpfs tmpfs /run
    mkdir -p /dev/pts /dev/shm
    mount -n -t devpts devpts /dev/pts
    mount -n -t tmpfs tmpfs /dev/shm
    ln -sfn /proc/self/fd /dev/fd
    ln -sfn /proc/self/mounts /etc/mtab
    ip link set lo up
    hostname uml
    mkdir -p "$UML_RUN"
    mount -n -t hostfs -o "$UML_RUN" none "$UML_RUN"
    modprobe -a sg st ch target_core_user tcm_loop && mount -n -t configfs configfs /sys/kernel/config
    (cd "$UML_RUN" && exec /bin/bash ./command </dev/null >output 2>errors)
    echo $? >"$UML_RUN/status"
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}

if [ "${1:-}" = ready ]; then ready; else overlay; fi
