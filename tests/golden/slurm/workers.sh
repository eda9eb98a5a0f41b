#!/usr/bin/env bash
#SBATCH --job-name=towtank-llama
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks=16
#SBATCH --cpus-per-task=1
#SBATCH --time=02:00:00
#SBATCH --output=towtank-llama-%A_%a.log
#SBATCH --account=abc
# Workers of a towtank study. Any number of them may run or die at any time: a configuration in hand is
# given back at the time limit, and taken over by others where a node is lost.
set -euo pipefail
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1
srun --kill-on-bad-exit=0 towtank tune --worker --storage '/scratch/my studies/llama.journal' --study llama
