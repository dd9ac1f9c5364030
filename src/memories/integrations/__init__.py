"""Adapters that give the tiers to other packages, in their own terms; one file or folder per host.

Nothing else in this package imports them. `memories.zarr`, `memories.fsspec`, `memories.xarray`,
`memories.dask`, `memories.joblib`, `memories.torch`, `memories.django`, `memories.dogpile`,
`memories.langchain` and `memories.key_value` are the names that users import.
"""
