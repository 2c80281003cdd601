#!/bin/sh
# A job file of lando as a token, and lando's server: a worker for each token, which knows the key, and leaves after it.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT

# A repository that git takes for https://github.com/someone/toyworkflow.git, so that this needs no network.
git init --quiet --initial-branch master "$desk/someone/toyworkflow.git"
cp "$here/fastq-workflow.cwl" "$desk/someone/toyworkflow.git"
cd "$desk/someone/toyworkflow.git"
git add fastq-workflow.cwl
git -c user.name=someone -c user.email=someone@localhost commit --quiet --message "A workflow"
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$desk/someone/.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/someone/
export TOKENPOOL_POOL="sqlite:///$desk/pool.db" XDG_STATE_HOME="$desk/state"
cd "$desk"

# lando_client.py workerconfig.yml start_worker job.yml
job=$(tokenpool --quiet import lando "$here/job.yml" --secret dds_user_key)

# lando.py makes a machine that does the job and ends; with fake_cloud_service it makes none, and a process stands for it.
{ cat "$here/landoconfig.yml"; echo "fake_cloud_service: true"; } >landoconfig.yml
tokenpool --quiet import lando --config landoconfig.yml >server.sh
TOKENPOOL_SECRET_dds_user_key=hunter2 sh server.sh --quiet --once
tokenpool --quiet wait "$job"
while [ -n "$(tokenpool --quiet launch list)" ]; do sleep 0.2; done # the "machine" goes

tokenpool --json show "$job" | python3 -c '
import json, sys
token = json.load(sys.stdin)
print("report:", token["output"]["result"]["report"]["basename"])
print("exit code:", token["exit_code"])'
