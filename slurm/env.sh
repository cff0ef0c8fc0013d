# shellcheck shell=bash
# What differs from site to site, in one place: sourced by every batch script before the ranks start.

# -- modules --------------------------------------------------------------------------------------------------------
# module purge
# module load cuda/12.8

# -- Python: what `submit` was called with, an active virtual environment, or the project's own ------------------------
export GENRE_LIGHTNING_PYTHON=${GENRE_LIGHTNING_PYTHON:-${VIRTUAL_ENV:-$SLURM_SUBMIT_DIR/.venv}/bin/python}

# -- caches: on a file system that all nodes share, and with room ------------------------------------------------------
# export GENRE_LIGHTNING_CACHE=/scratch/$USER/genre_lightning
# export HF_HOME=/scratch/$USER/huggingface
# Compute nodes often have no network: load the backbone once on the login node, then
# export HF_HUB_OFFLINE=1
# export WANDB_MODE=offline

# -- threads: a rank uses the CPUs that its task was given, divided among the ranks of the task ------------------------
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(((${SLURM_CPUS_PER_TASK:-1} + ${ranks_per_task:-1} - 1) / ${ranks_per_task:-1}))}

# -- NCCL --------------------------------------------------------------------------------------------------------------
# The network interface between the nodes, where NCCL or gloo chooses a wrong one; gloo takes a name that NCCL is given:
# export NCCL_SOCKET_IFNAME=ib0
# What NCCL chose, when the nodes do not meet:
# export NCCL_DEBUG=INFO
