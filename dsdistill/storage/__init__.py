"""The HDF5 files: distilled sets, and experts."""
