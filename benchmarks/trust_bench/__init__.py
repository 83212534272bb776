"""Parts of the benchmark of doubt: what is read, and what it adds up to."""
