"""Results of dask in the tiers: what a worker keeps (the extra `dask`)."""

from memories.integrations.dask import WorkerData, dask_setup, worker_data

__all__ = ["WorkerData", "dask_setup", "worker_data"]
