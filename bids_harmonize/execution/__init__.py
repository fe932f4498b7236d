"""Who runs tasks: this process, worker processes, Dask, Slurm; and what is logged meanwhile."""
