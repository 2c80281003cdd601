#!/bin/sh
# confined.sh GROUP CMD...: run CMD in a control group of its own, which is all that it sees of them.
#
# A systemd moves every process of the group that it takes for its root into groups of its own. Here that root holds nobody
# but itself; /run/systemd is an empty one of its own too, which tells it that it may be a user's manager.
set -e
top=/sys/fs/cgroup/systemd
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then top=/sys/fs/cgroup; fi
mkdir "$top/$1"
echo $$ >"$top/$1/cgroup.procs"
shift
exec unshare --mount --cgroup -- sh -ec '
  mount -t tmpfs tmpfs /run/systemd
  mkdir /run/systemd/system
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    top=/sys/fs/cgroup
  else
    mount -t tmpfs tmpfs /sys/fs/cgroup
    top=/sys/fs/cgroup/systemd
    mkdir $top
    mount -t cgroup -o none,name=systemd cgroup $top
  fi
  for pid in $(cat $top/cgroup.procs); do
    if [ $pid != $$ ] && [ -e /proc/$pid ]; then echo "process $pid is not ours: refused" >&2; exit 1; fi
  done
  exec "$@"' sh "$@"
