#!/bin/sh
# A SimpleTasks task type from its JSON to its outputs, in a folder of its own. Nothing but tokenpool is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"

# The bucket is a folder here; an URL like s3://bucket works as well, where fsspec knows it.
export TOKENPOOL_DATASOURCE="$place/bucket" TOKENPOOL_CACHE="$place/cache" PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p bucket/datasets/noop_dataset/0_input
echo four > bucket/datasets/noop_dataset/0_input/4.dat
echo five > bucket/datasets/noop_dataset/0_input/5.dat

tokenpool import simpletasks "$here/tasks.json"
tokenpool work --quit --allow-module noop_task
tokenpool list all
cat bucket/datasets/noop_dataset/0_output/4.dat bucket/datasets/noop_dataset/0_output/5.dat
