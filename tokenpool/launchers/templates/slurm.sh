#!/bin/bash
#SBATCH --job-name={{name}}
#SBATCH --array=1-{{jobs}}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={{cpus}}
#SBATCH --mem={{ram_mb}}M
#SBATCH --gres=gpu:{{gpus}}
#SBATCH --time={{walltime}}
#SBATCH --signal=B:USR1@{{warning}}
#SBATCH --open-mode=append
#SBATCH --output={{output}}
#SBATCH {{extra}}

{{setup}}
{{environment}}
# The worker asks Slurm when this job ends, and leaves before. It takes the place of this shell, so that it gets the signals:
# after USR1 it claims nothing more, after TERM it gives back what it runs.
exec {{worker}}
