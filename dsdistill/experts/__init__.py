"""Training experts: networks stored as they were after some of their epochs."""
