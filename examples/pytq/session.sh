#!/bin/sh
# The command lines of a user of PYTQ: tasks of a batch, in a container, with the shared folder /data. IMAGE names another image.
set -eu
image=${IMAGE:-docker.io/library/alpine:latest}
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
mkdir "$desk/data"
export TOKENPOOL_POOL="sqlite:///$desk/pool.db"

# pytq-launch -b test -d alpine:latest echo 'Hello world!'
tokenpool --quiet push -b test -d "$image" -n hello -- echo 'Hello world!' > "$desk/hello"

# A task that can be launched again makes its folder anew. \$CPU and \$j are for the task, $i is for this shell.
for i in 1 2 3; do
  # pytq-launch -b test -d mydocker sh -c "rm -fr /data/work/task$i && …"
  tokenpool --quiet push -b test -d "$image" -n "task$i" -- sh -c "rm -fr /data/work/task$i && \
mkdir -p /data/work/task$i && cd /data/work/task$i && \
for j in \$(seq 1 3); do echo try \$j with \$CPU cpus > result && break; done" > /dev/null
done

# pytq-worker HOST 2, whose /data is the folder that all workers share
tokenpool --quiet work --batch test --slots 2 --quit --mount "$desk/data:/data:rw"

tokenpool logs "$(cat "$desk/hello")"
for i in 1 2 3; do
  echo "task$i: $(cat "$desk/data/work/task$i/result")"
done
