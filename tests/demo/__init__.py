"""`make demo`: the whole flow on real data, an honest owner and dishonest ones, through the two programs."""
