#!/usr/bin/env bash
# Works tokens in a Slurm job array: sbatch slurm-example.sh. Each of the jobs takes tokens until none waits.
#SBATCH --job-name=picas
#SBATCH --array=0-5
#SBATCH --cpus-per-task=1
#SBATCH --time=00:30:00

# Load your Python environment here, if it is not loaded already when you call sbatch:
# source ~/venv/bin/activate

cd "${SLURM_SUBMIT_DIR:-.}" || exit 1
# In place of this shell, so that scancel and the end of the time are told to Python.
exec python3 local_example.py --design_doc "${DESIGN_DOC:-Monitor}" --view "${VIEW:-todo}" "$@"
