#!/bin/bash
# cluster/slurm-pools.sh N WHAT BIDS_DIR OUTPUT_DIR [options of the level participant]
# Scans that share an edit, in three Slurm jobs, each of which waits until the one before has ended well: every scan
# by itself, an array of N tasks (slurm-array.sh); the level group, which forms the pools of scans that have WHAT in
# common (protocol, site, session or a column); and the array again, which applies them. Prints the numbers of the jobs.
#   HARMONIZE, HARMONIZE_PARTICIPANTS   as for slurm-array.sh
#   SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and so on, which sbatch reads, hold for all three.
set -euo pipefail
usage=64
fail() { echo "slurm-pools.sh: $2" >&2; exit "$1"; }

[ $# -ge 4 ] || fail $usage "usage: slurm-pools.sh N WHAT BIDS_DIR OUTPUT_DIR [options]"
tasks=$1 what=$2 bids_dir=$3 output_dir=$4
shift 4
[[ $tasks =~ ^[1-9][0-9]*$ ]] || fail $usage "N is no number from 1 up: $tasks"
array=$(cd "$(dirname "$0")" && pwd)/slurm-array.sh
form=$(printf '%q ' "$bids_dir" "$output_dir" group --pool-by "$what")

first=$(sbatch --parsable --array="1-$tasks" "$array" "$bids_dir" "$output_dir" "$@")
pools=$(sbatch --parsable --dependency="afterok:$first" --job-name=bids-harmonize-pools \
    --wrap "${HARMONIZE:-bids-harmonize} $form")
second=$(sbatch --parsable --dependency="afterok:$pools" --array="1-$tasks" "$array" "$bids_dir" "$output_dir" "$@" \
    --pool "$output_dir/pools")
echo "$first $pools $second"
