#!/bin/sh
# Writes the parameters of 24 fractals, one token a line, into a new file and prints its name.
set -eu
file=$(mktemp)
i=0
while [ "$i" -lt 24 ]; do
    # 24 angles from 1/10 to 1/2 of a turn; more iterations where the spirals are finer.
    printf -- '-q 0.%03d -d %d -m 3\n' $((100 + i * 17)) $((600 + i % 4 * 200)) >> "$file"
    i=$((i + 1))
done
echo "$file"
