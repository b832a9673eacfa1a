"""Every method, scenario and data set side by side: `make table`; see `__main__`."""
