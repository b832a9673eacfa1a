"""Studies and timings: run by hand (`make …`), results committed beside them with machine, versions and seeds."""
