"""Many CTs on many workers: a catalogue, a run that survives, a table, a report. Dask does the scheduling."""
