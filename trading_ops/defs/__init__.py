"""All of Dagster: one page a capability, each read from top to bottom: asset, checks, job, schedule, sensor."""
