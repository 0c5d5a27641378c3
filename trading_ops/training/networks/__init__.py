"""The networks, one a module: each turns windows of features into the log-odds of a rise."""
