#!/usr/bin/env bash
# The eight samples of PYTQ's README: inputs from S3, a shared resource that is unpacked, outputs to S3.
#
#   BUCKET=s3://my-bucket/folder ./session.sh
#
# S3 is reached as by everything else: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_PROFILE. IMAGE names an
# image with a shell, gzip and awk; without it, the commands run on this machine. SLOTS is how many run at once.
set -eu
: "${BUCKET:?an empty place: BUCKET=s3://my-bucket/folder}"
here=$(cd "$(dirname "$0")" && pwd)
desk=$(mktemp -d)
trap 'rm -rf "$desk"' EXIT
export TOKENPOOL_POOL="sqlite:///$desk/pool.db"

# What a user of PYTQ writes once; his loops stay as they are.
pytq-launch() { tokenpool --quiet import pytq -- pytq-launch "$@" > /dev/null; }

# Eight samples of two files each, what all of them need, and the pipeline that stands for a private image: put there by a token.
tokenpool --quiet push -b samples -o "$BUCKET/" -- python3 "$here/samples.py" > /dev/null
tokenpool --quiet work --batch samples --quit

for i in $(seq 1 8)
do
pytq-launch -b s5810 -n mgshot_S5810Nr$i \
-i "$BUCKET/S5810/mgshot_S5810Nr$i.1.fastq.gz $BUCKET/S5810/mgshot_S5810Nr$i.2.fastq.gz" \
-r "$BUCKET/reference/genes.tsv.gz|gunzip $BUCKET/reference/pipeline_rnd.sh" \
-o "$BUCKET/results/S5810Nr$i/" ${IMAGE:+-d "$IMAGE"} \
sh -c "cd \$INPUT && sh \$RESOURCE/pipeline_rnd.sh mgshot_S5810Nr$i \$RESOURCE/genes.tsv; \
returncode=\$?; rm *.fastq.gz; cp * \$OUTPUT/; exit \$returncode"
done

tokenpool --quiet work --batch s5810 --slots "${SLOTS:-4}" --quit --cache "$desk/cache"
tokenpool list batch:s5810
tokenpool --quiet fetch --flat --no-logs batch:s5810 "${RESULTS:-results}"
head -n 3 "${RESULTS:-results}"/mgshot_S5810Nr1.counts
