"""Jobs, runs, result files and sweeps."""
