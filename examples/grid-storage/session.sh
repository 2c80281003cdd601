#!/bin/sh
# Tokens that read from and write to Grid storage: once with inputs and outputs, once with a script as picas' users have it.
#
#   STORAGE=root://se.example.org:1094//data/me ./session.sh
#
# The proxy is that of X509_USER_PROXY (voms-proxy-init, arcproxy) or BEARER_TOKEN_FILE, as for every program of the Grid.
set -eu
: "${STORAGE:?an empty folder on Grid storage: STORAGE=root://se.example.org:1094//data/me}"
here=$(cd "$(dirname "$0")" && pwd)
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
export TOKENPOOL_POOL="sqlite:///$desk/pool.db" PICAS_HOST_URL="sqlite:///$desk/picas.db"

# The samples: made by a token, and put there when it has ended.
tokenpool --quiet push -b samples -o "$STORAGE/samples/" -- sh -c '
  for n in 1 2 3; do seq $((n * 100)) > "$OUTPUT/sample$n.fastq"; done' > /dev/null
tokenpool --quiet work --batch samples --quit

# 1. A token names its data. The worker brings it, and takes the result away.
for n in 1 2 3; do
  tokenpool --quiet push -b counts -n "sample$n" -i "$STORAGE/samples/sample$n.fastq" -o "$STORAGE/results/sample$n/" -- \
    sh -c "wc -l < \$INPUT/sample$n.fastq > \$OUTPUT/count.txt" > /dev/null
done
tokenpool --quiet work --batch counts --slots 3 --quit
tokenpool --quiet fetch batch:counts "$desk/home" --no-logs
cat "$desk"/home/*/count.txt | sort -n

# 2. A picas script fetches and sends by itself.
tokenpool --quiet --pool "$PICAS_HOST_URL" init
python3 "$here/push_tokens.py" "$STORAGE"
python3 "$here/grid_actor.py"
tokenpool --pool "$PICAS_HOST_URL" status
