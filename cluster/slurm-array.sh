#!/bin/bash
#SBATCH --job-name=bids-harmonize
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --output=%x-%A_%a.log
# sbatch --array=1-N cluster/slurm-array.sh BIDS_DIR OUTPUT_DIR [options]
# The level participant as N Slurm tasks: of the sorted sub-* folders of BIDS_DIR, task k does the k-th, the (N+k)-th
# and so on; with an N of at least the number of participants, one or none. All may write to one OUTPUT_DIR at a time.
# Options of sbatch go before the script, and win over the lines above: CPUs, memory, time, partition, account.
#   HARMONIZE               the program, quoted as in a shell (default: bids-harmonize), for example
#                           apptainer run --containall --cleanenv -B /project harmonize.sif
#   HARMONIZE_PARTICIPANTS  the labels to share out, with spaces between them (default: all of BIDS_DIR)
#   HARMONIZE_TASKS         N, where only some tasks of 1-N are submitted again (default: the size of the array)
# What was interrupted is finished by submitting the same line again: scans that are done are not done twice.
# The level group, once all tasks have ended well:
#   sbatch --dependency=afterok:JOB --wrap "bids-harmonize 'BIDS_DIR' 'OUTPUT_DIR' group"
set -euo pipefail
# BIDS Apps' exit codes of wrong usage, of no input, and of filters that match nothing.
usage=64 no_input=66 nothing_selected=18
say() { echo "slurm-array.sh: $*" >&2; }
fail() { say "$2"; exit "$1"; }

[ $# -ge 2 ] || fail $usage "usage: sbatch --array=1-N slurm-array.sh BIDS_DIR OUTPUT_DIR [options]"
bids_dir=$1 output_dir=$2
shift 2
for option; do
    case ${option//_/-} in
        --participant-label* | --exclude-participant-label*)
            fail $usage "every task gets the same options; say HARMONIZE_PARTICIPANTS='01 02' in place of $option" ;;
    esac
done
[ -d "$bids_dir" ] || fail $no_input "the dataset $bids_dir does not exist, or is not a folder"

task=${SLURM_ARRAY_TASK_ID:-} tasks=${HARMONIZE_TASKS:-}
[ -n "$task" ] || fail $usage "this is no array job; submit it with sbatch --array=1-N"
if [ -z "$tasks" ]; then
    tasks=$SLURM_ARRAY_TASK_COUNT
    # Of 3,7 nothing tells who is whose: participants would be done twice, or by nobody.
    [ "$SLURM_ARRAY_TASK_MIN-$SLURM_ARRAY_TASK_MAX" = "1-$tasks" ] \
        || fail $usage "the array is not 1-N; if it is a part of one, set HARMONIZE_TASKS to N"
fi
[[ $tasks =~ ^[1-9][0-9]*$ ]] || fail $usage "HARMONIZE_TASKS is no number from 1 up: $tasks"
((task >= 1 && task <= tasks)) || fail $usage "task $task is not in 1-$tasks"

labels=()
find_labels() {
    # The same order on every machine.
    local LC_ALL=C folder
    for folder in "$bids_dir"/sub-*/; do
        [ ! -d "$folder" ] || labels+=("$(basename "$folder")")
    done
}
if [ -n "${HARMONIZE_PARTICIPANTS:-}" ]; then
    read -r -d '' -a labels <<<"$HARMONIZE_PARTICIPANTS" || true
else
    find_labels
fi
[ ${#labels[@]} -gt 0 ] || fail $nothing_selected "$bids_dir holds no folder sub-*"
mine=()
for ((n = task - 1; n < ${#labels[@]}; n += tasks)); do mine+=("${labels[n]}"); done
if [ ${#mine[@]} = 0 ]; then
    say "task $task has nothing to do: there are ${#labels[@]} participants"
    exit 0
fi
say "task $task of $tasks: ${mine[*]}"

# Split as a shell would, and nothing in it expanded.
mapfile -d '' program < <(xargs printf '%s\0' <<<"${HARMONIZE:-bids-harmonize}")
# Told as well as left in the environment, which a container may not see.
call=("${program[@]}" "$bids_dir" "$output_dir" participant ${SLURM_CPUS_PER_TASK:+--n-cpus "$SLURM_CPUS_PER_TASK"}
    "$@" --participant-label "${mine[@]}")
# A signal to end is for all of a task's processes; this one waits until the program has removed what is half-written.
trap : TERM
code=0
"${call[@]}" || code=$?
if [ $code = $nothing_selected ]; then
    # Somebody without such a scan is no failure of the array.
    say "no scan of ${mine[*]} is asked for"
    code=0
fi
exit $code
