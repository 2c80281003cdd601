#!/bin/sh
# Stands for a pipeline: counts the reads of SAMPLE, in both its files, that hold the word of each gene. pipeline_rnd.sh SAMPLE GENES
set -eu
for side in 1 2; do
  gzip -dc "$1.$side.fastq.gz"
done | awk -v genes="$2" '
  BEGIN { while ((getline line < genes) > 0) { split(line, part, "\t"); word[part[1]] = part[2]; order[++many] = part[1] } }
  NR % 4 == 2 { reads++; for (gene in word) if (index($0, word[gene])) count[gene]++ }
  END { print "reads\t" reads; for (n = 1; n <= many; n++) print order[n] "\t" count[order[n]] + 0 }
' > "$1.counts"
