#!/bin/sh
# A session of makeitso with its words: run a workflow from GitHub, send it as a task, work the tasks, read the result.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT

# A repository that stands for github.com/someone/counting, so that this needs no network.
git init --quiet --initial-branch master "$desk/github/someone/counting"
cp "$here/Dockstore.cwl" "$desk/github/someone/counting"
cd "$desk/github/someone/counting"
git add Dockstore.cwl
git -c user.name=someone -c user.email=someone@localhost commit --quiet --message "A workflow"
export TOKENPOOL_GITHUB="file://$desk/github"

# makeitso server: the pool. Here a file; couchdb+https://… works from anywhere.
export MAKEITSO_SERVER="sqlite:///$desk/pool.db"
cd "$desk"

# makeitso run someone/counting params.yaml
tokenpool --quiet run-cwl someone/counting:master "$here/params.yaml" > result.json
echo "here and now: $(cat count.txt)"

# makeitso sendtask someone/counting params.yaml
task=$(tokenpool --quiet sendtask someone/counting:master "$here/params.yaml")

# makeitso worker --quit
tokenpool --quiet work --quit --sleep-time 1

tokenpool --json show "$task" | python3 -c '
import json, sys
output = json.load(sys.stdin)["output"]
print("through the pool:", output["result"]["count"]["checksum"])
print("of commit:", output["workflow"]["commit"])'
