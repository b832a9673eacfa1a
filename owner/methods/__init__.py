"""Ways to answer a request. Each takes a `Job` and gives a `Result` (patch and claims)."""
