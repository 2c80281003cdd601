#!/bin/sh
# Starts work on a worker node: unpacks what came along, then runs local_example.py; its options are passed on.
set -eu
cd "$(dirname "$0")"
for archive in *.tar *.tar.gz *.tgz; do
    if [ -e "$archive" ]; then tar -xf "$archive"; fi
done
chmod +x process_task.sh
for program in fractals bin/fractals; do
    # Batch systems drop the mode of the files that they send.
    if [ -e "$program" ]; then chmod +x "$program"; fi
done
PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
# An unpacked source archive, CouchDB-1.2/ for one, holds its package one folder down; a package itself is no path.
for folder in "$PWD"/*/; do
    if [ ! -e "$folder/__init__.py" ]; then PYTHONPATH=$PYTHONPATH:${folder%/}; fi
done
export PYTHONPATH
exec "${PYTHON:-python3}" local_example.py "$@"
