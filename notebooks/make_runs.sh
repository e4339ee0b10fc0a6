#!/usr/bin/env bash
# Makes the runs that the notebooks read, in notebooks/runs, from nothing: three minutes on two cores.
# What is there already is kept, cell by cell; delete a folder to have it made again.
set -euo pipefail
cd "$(dirname "$0")/.."
infer=.venv/bin/infer
runs=notebooks/runs
problems=80

# accuracy per cost of the strategies, on nano-s: a pool of independent samples, and searches of growing width
$infer compare --strategy greedy --strategy best-of-n,n=16,choose=weighted --limit $problems --run $runs/samples
$infer compare --strategy astar,k=2 --strategy astar,k=4 --strategy astar,k=8 \
    --strategy beam,n=4 --strategy beam,n=8 \
    --strategy particle-filter,n=2 --strategy particle-filter,n=4 --strategy particle-filter,n=8 \
    --limit $problems --run $runs/search

# which size at which budget: pools of the other three models
$infer sweep --model nano-xs --strategy best-of-n,n=8,choose=weighted --limit $problems --run $runs/sizes-xs
$infer sweep --model nano-m --strategy best-of-n,n=8,choose=weighted --limit $problems --run $runs/sizes-m
$infer sweep --model nano-l --strategy best-of-n,n=4,choose=weighted --limit $problems --run $runs/sizes-l

find $runs -name log.txt -delete
