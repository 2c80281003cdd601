#!/bin/bash
#PBS -N {{name}}
#PBS -S /bin/bash
#PBS -J 1-{{array}}
#PBS -l {{select}}
#PBS -l walltime={{walltime}}
#PBS -j oe
#PBS -o {{logs}}
#PBS {{extra}}

cd "${PBS_O_WORKDIR:-.}" || exit 1
{{setup}}
{{environment}}
# Not every PBS tells its jobs how long they may run. The worker leaves before.
export PBS_WALLTIME="${PBS_WALLTIME:-{{walltime_seconds}}}"
exec {{worker}}
