#!/bin/sh
# Starts a worker on a worker node, from what the job brought along; its words go to `tokenpool work`, or to local_example.py
# where that lies here. TOKENPOOL_ENVIRONMENT=/cvmfs/… puts the programs of an environment there first; PYTHON chooses a Python.
set -eu
umask 077
cd "$(dirname "$0")"
here=$PWD

for archive in *.tar *.tar.gz *.tgz; do
    if [ -e "$archive" ]; then tar -xf "$archive"; fi
done
# Batch systems drop the modes of the files that they send.
for program in tokenpool.pyz process_task.sh fractals bin/fractals; do
    if [ -e "$program" ]; then chmod u+x "$program"; fi
done
for secret in "${TOKENPOOL_PASSWORD_FILE:-password}" tokenpool.toml; do
    if [ -e "$secret" ]; then chmod go= "$secret"; fi
done

if [ -n "${TOKENPOOL_ENVIRONMENT:-}" ]; then
    if [ ! -d "$TOKENPOOL_ENVIRONMENT/bin" ]; then
        echo "error: $TOKENPOOL_ENVIRONMENT/bin is not on this node" >&2
        echo "hint: is its CVMFS repository mounted here, and published?" >&2
        exit 1
    fi
    PATH=$TOKENPOOL_ENVIRONMENT/bin:${PATH:-/usr/bin:/bin}
    export PATH
fi
# A node's python3 may be too old while a newer one is beside it.
python=
for candidate in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
    if [ -z "$python" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
        python=$candidate
    fi
done
if [ -z "$python" ]; then
    echo "error: there is no Python 3.9 or newer on this node" >&2
    echo "hint: name one, for example from CVMFS, in the variable PYTHON" >&2
    exit 1
fi
# Homes of nodes may be read-only, or missing.
export HOME="${HOME:-$here}"
export TOKENPOOL_SPOOL="${TOKENPOOL_SPOOL:-$here/spool}"

if [ ! -e local_example.py ]; then
    exec "$python" tokenpool.pyz work "$@"
fi
PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH}
if [ -e tokenpool.pyz ]; then PYTHONPATH=$here/tokenpool.pyz:$PYTHONPATH; fi
# An unpacked source archive, CouchDB-1.2/ for one, holds its package one folder down; a package itself is no path.
for folder in "$here"/*/; do
    if [ -d "$folder" ] && [ ! -e "$folder/__init__.py" ]; then PYTHONPATH=$PYTHONPATH:${folder%/}; fi
done
export PYTHONPATH
exec "$python" local_example.py "$@"
